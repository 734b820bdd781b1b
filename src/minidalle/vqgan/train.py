"""Train a VQGAN in PyTorch: bf16 autocast, averaged weights, and a resume that changes nothing.

Everything random in step t (batch, dropout, revived codes) is drawn from a generator seeded by (seed, t), so a run that
is killed and started again logs the same losses as one that was not.
"""

import copy
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from ..data import emoji
from ..data.order import Order
from ..files import replacing
from ..training import TrainingInterrupted, log, section
from ..training.loop import stop_signals
from . import distributed
from .config import VQGANConfig
from .export import export
from .losses import Discriminator, adaptive_weight, discriminator_loss, generator_loss, reconstruction_loss
from .model import VQGAN


@dataclass(frozen=True)
class VQGANTraining:
    """The schedule; every field can stand in a recipe's `[train]`."""

    steps: int = 1000  # length of the schedule
    stop_at: int = 0  # end at this step, with the schedule cut short; 0 goes to the end
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    l1: float = 1.0
    l2: float = 0.0
    perceptual_weight: float = 0.0
    disc_weight: float = 0.0  # 0 leaves the discriminator out altogether
    disc_start: int = 0  # step from which the generator listens to it; it trains from here on too
    disc_channels: int = 32
    disc_layers: int = 2
    disc_rate: float = 1.0  # the discriminator's learning rate, in units of the generator's
    disc_adaptive: bool = True  # False leaves the adversarial loss as it is: `disc_weight` alone scales it
    codebook_weight: float = 1.0
    codebook_start: int = 0  # until then nothing is quantized; then the codebook starts at k-means centres
    beta: float = 0.25
    revive_after: int = 0
    frozen: tuple[str, ...] = ()  # parts that stay as they are: ("encoder", "quant_conv", "quantize") keeps codes
    ema_decay: float = 0.999
    bfloat16: bool = True
    compile: bool = False  # pays on GPUs; on two CPU cores it took 90 s and won nothing
    save_every: int = 500
    log_every: int = 20


class Run:
    """The state of one training run, in memory and on disk.

    Args:
        config: sizes of the network.
        training: the schedule.
        images: `(n, 3, H, W)` uint8, all of them in memory.
        seed: of everything random.
        folder: where `log.jsonl` and `state.pt` go; created when missing.
        perceptual: a `PerceptualLoss`, needed when `perceptual_weight` is not 0.
        start: a trained VQGAN of the same config, whose weights and codebook it begins with instead of random ones.
    """

    def __init__(self, config, training, images, *, seed, folder, perceptual=None, start=None, device=None):
        if len(images) < 1 or images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"images must be uint8 (n, 3, height, width) and not empty, got {images.dtype} {tuple(images.shape)}"
            )
        if training.perceptual_weight and perceptual is None:
            raise ValueError("perceptual_weight is set but no perceptual loss was given")
        self.config, self.training, self.images, self.seed = config, training, images, seed
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        options = (
            {"beta": training.beta, "revive_after": training.revive_after}
            if config.quantizer in ("nearest", "ema")
            else {}
        )
        self.model = VQGAN(config, **options).to(self.device, memory_format=torch.channels_last)
        self.started = start is not None
        if self.started:
            self.model.load_state_dict(start.state_dict())
            # Running means are not stored with a checkpoint; its codes are where they start.
            if config.quantizer == "ema":
                self.model.quantize.revive(torch.arange(config.n_embed), start.quantize.codebook.to(self.device))
        freeze(self.model, training.frozen)
        if training.disc_weight and training.disc_adaptive and not self.model.decoder.conv_out.weight.requires_grad:
            raise ValueError(
                "the adaptive weight is measured at decoder.conv_out, which is frozen; leave it out of frozen, or set "
                "disc_adaptive = false"
            )
        self.forward = torch.compile(self.model) if training.compile else self.model
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            [parameter for parameter in self.model.parameters() if parameter.requires_grad],
            betas=(0.9, 0.99),
            weight_decay=training.weight_decay,
            fused=True,  # one pass over the weights instead of six; a fifth of the step on two cores
        )
        self.discriminator = self.disc_optimizer = None
        if training.disc_weight:
            self.discriminator = Discriminator(config.out_ch, training.disc_channels, training.disc_layers).to(
                self.device
            )
            self.disc_optimizer = torch.optim.AdamW(self.discriminator.parameters(), betas=(0.5, 0.9), fused=True)
        self.judge = self.discriminator
        if distributed.world() > 1:
            idle = training.codebook_start and any(weight.requires_grad for weight in self.model.quantize.parameters())
            self.forward = DistributedDataParallel(self.forward, find_unused_parameters=bool(idle))
            self.judge = self.discriminator and DistributedDataParallel(self.discriminator)
        self.perceptual = perceptual.to(self.device) if perceptual is not None else None
        self.order = Order(len(images), training.batch_size, (seed,))
        self.order.rows(0, parts=distributed.world())  # refuses what cannot be shared before there is anything to share
        self.step = 0

    def batch(self, step: int, whole: bool = False) -> Tensor:
        """Return the pictures of a step, `(batch, 3, H, W)` in [0, 1]: epochs of shuffled order, seeded.

        Where several processes train together, each gets its part, unless it asks for the whole.
        """
        part, parts = (0, 1) if whole else (distributed.rank(), distributed.world())
        rows = self.order.rows(step, part, parts)
        chosen = self.images[torch.from_numpy(rows)].to(self.device).float() / 255
        return chosen.contiguous(memory_format=torch.channels_last)

    def learning_rate(self, step: int) -> float:
        """Linear warmup, then a cosine down to 2 % of the peak."""
        t = self.training
        if step < t.warmup_steps:
            return t.learning_rate * (step + 1) / t.warmup_steps
        progress = (step - t.warmup_steps) / max(1, t.steps - t.warmup_steps)
        return t.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))

    def train_step(self) -> dict[str, float | Tensor]:
        """Take one step and return what is logged."""
        t, step = self.training, self.step
        torch.manual_seed(self.seed * 1_000_003 + step + (distributed.rank() << 48))
        images, rate = self.batch(step), self.learning_rate(step)
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=t.bfloat16)
        if step == t.codebook_start and not self.started and hasattr(self.model.quantize, "initialize"):
            self._initialize_codebook()
        with autocast:
            reconstructions, quantized = self.forward(images, step >= t.codebook_start)
        quantizer_loss, perplexity = (
            (torch.zeros(()),) * 2 if quantized is None else (quantized.loss, quantized.perplexity)
        )
        reconstructions = reconstructions.float()
        loss = reconstruction_loss(images, reconstructions, t.l1, t.l2)
        if t.perceptual_weight:
            with autocast:
                loss = loss + t.perceptual_weight * self.perceptual(images, reconstructions).float()
        logged = {"loss": loss.detach(), "quantizer": quantizer_loss.detach(), "perplexity": perplexity}
        if self.discriminator is not None and step >= t.disc_start:
            self.discriminator.requires_grad_(False)
            adversarial = generator_loss(self.discriminator(reconstructions))
            weight = torch.ones(())
            if t.disc_adaptive:
                weight = adaptive_weight(loss, adversarial, self.model.decoder.conv_out.weight)
            self.discriminator.requires_grad_(True)
            loss = loss + t.disc_weight * weight * adversarial
            logged |= {"adversarial": adversarial.detach(), "adaptive_weight": weight}
        self._update(self.optimizer, loss + t.codebook_weight * quantizer_loss, self.model, rate)
        if self.discriminator is not None and step >= t.disc_start:
            real, fake = self.judge(images), self.judge(reconstructions.detach())
            disc = discriminator_loss(real, fake)
            self._update(self.disc_optimizer, disc, self.discriminator, rate * t.disc_rate)
            logged["discriminator"] = disc.detach()
        with torch.no_grad():
            decay = min(t.ema_decay, (1 + step) / (10 + step))
            for ours, theirs in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
                ours.lerp_(theirs, 1 - decay) if ours.is_floating_point() else ours.copy_(theirs)
        self.step += 1
        error = (images - reconstructions.detach()).square().mean()
        means = distributed.mean(torch.stack([value.float().to(self.device) for value in (*logged.values(), error)]))
        logged = dict(zip(logged, means, strict=False))
        return logged | {"psnr": -10 * torch.log10(means[-1]), "learning_rate": rate}

    def _update(self, optimizer, loss, module, rate) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), self.training.clip_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"the gradient is not finite at step {self.step}; lower learning_rate, or resume from {self.folder} "
                "with bfloat16 = false"
            )
        optimizer.step()

    @torch.no_grad()
    def _initialize_codebook(self) -> None:
        """Place the codes at the k-means centres of what the encoder says of enough pictures."""
        wanted = max(1, 16 * self.config.n_embed // self.config.code_length // self.training.batch_size)
        self.model.eval()
        vectors = torch.cat([self.model.features(self.batch(step, whole=True)) for step in range(min(wanted, 64))])
        self.model.train()
        self.model.quantize.initialize(vectors)
        distributed.take_from_first(self.model.quantize)

    def save(self) -> None:
        """Write the whole state to `state.pt`; a kill leaves the old one whole. Of several processes the first does it."""
        if distributed.rank() == 0:
            self._write()
        distributed.wait_for_all()

    def _write(self) -> None:
        state = {
            "step": self.step,
            "config": json.dumps(self.config.to_dict()),
            "training": json.dumps(asdict(self.training)),
            "seed": self.seed,
            "started": self.started,
            "model": self.model.state_dict(),
            "idle": getattr(self.model.quantize, "idle", None),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "discriminator": self.discriminator and self.discriminator.state_dict(),
            "disc_optimizer": self.disc_optimizer and self.disc_optimizer.state_dict(),
        }
        with replacing(self.folder / "state.pt") as temporary:
            torch.save(state, temporary)

    def resume(self) -> int:
        """Take up the state that `folder` holds and return its step; 0 where there is none.

        Raises:
            ValueError: the state is damaged, or that of another recipe.
        """
        path = self.folder / "state.pt"
        if not path.exists():
            return 0
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:  # torch raises many kinds, all meaning a damaged file
            raise ValueError(
                f"{path} is damaged ({type(error).__name__}: {error}); put a copy back, or delete it to start anew"
            ) from error
        if different := self._differences(state):
            raise ValueError(
                f"{path} belongs to another recipe, with {', '.join(different)}; give another run folder, or delete it "
                "to start anew"
            )
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["idle"] is not None:
            self.model.quantize.idle.copy_(state["idle"])
        if self.discriminator is not None:
            self.discriminator.load_state_dict(state["discriminator"])
            self.disc_optimizer.load_state_dict(state["disc_optimizer"])
        self.step, self.started = state["step"], state.get("started", self.started)
        return self.step

    def _differences(self, state: dict) -> list[str]:
        """Say which settings that steps depend on were others in a stored state.

        What an older state lacks has its default there: a new setting's default is what was done before there was one.
        """
        stored = plain(VQGANConfig(), VQGANTraining()) | json.loads(state["config"]) | json.loads(state["training"])
        ours = plain(self.config, self.training)
        stored["seed"], ours["seed"] = state.get("seed", self.seed), self.seed
        free = ("stop_at", "save_every", "log_every")  # these may change between two starts of a run
        names = [name for name in stored | ours if name not in free and stored.get(name) != ours.get(name)]
        return [f"{name} {stored.get(name)!r} instead of {ours.get(name)!r}" for name in names]

    def fit(self, progress: bool = True) -> VQGAN:
        """Train to the last step, logging to `log.jsonl` from this step on; return the averaged model.

        Raises:
            TrainingInterrupted: Ctrl-C or SIGTERM came; the step under way was finished, and everything saved.
            FloatingPointError: a gradient is NaN or infinite; the last saved state stays.
        """
        self.model.train()
        if "quantize" in self.training.frozen:
            self.model.quantize.eval()  # running means would move the codebook
        writes = distributed.rank() == 0
        if writes:
            log.truncate(self.folder / "log.jsonl", self.step - 1)
        last = self.training.stop_at or self.training.steps
        bar = tqdm(total=last, initial=self.step, disable=not (progress and writes), desc="vqgan", unit="step")
        with stop_signals() as stop, bar:
            while self.step < last:
                step = self.step
                logged = self.train_step()
                if step % self.training.log_every == 0 or self.step == last:
                    values = {key: float(value) for key, value in logged.items()}
                    if writes:
                        log.append(self.folder / "log.jsonl", {"step": step, **values})
                    bar.set_postfix(psnr=f"{values['psnr']:.2f}", perplexity=f"{values['perplexity']:.0f}")
                bar.update()
                stopping = distributed.any_of(stop.is_set(), self.device)
                if self.step % self.training.save_every == 0 or self.step == last or stopping:
                    self.save()
                if stopping and self.step < last:
                    raise TrainingInterrupted(
                        f"stopped after step {self.step} of {last}; saved in {self.folder}. "
                        "The same command goes on from there."
                    )
        return self.average


def plain(config: VQGANConfig, training: VQGANTraining) -> dict:
    """Return all settings as JSON gives them back, tuples as lists."""
    return json.loads(json.dumps(config.to_dict() | asdict(training)))


def freeze(model: VQGAN, parts: tuple[str, ...]) -> None:
    """Take the gradient from every weight whose name begins with one of `parts`, such as "encoder" or "decoder.up.2".

    Raises ValueError for a part that no weight belongs to.
    """
    for part in parts:
        found = [weight for name, weight in model.named_parameters() if name == part or name.startswith(f"{part}.")]
        if not found:
            known = ", ".join(name for name, _ in model.named_children())
            raise ValueError(f"frozen names {part!r}, to which no weight belongs; expected {known}, or a part of these")
        for weight in found:
            weight.requires_grad_(False)
    for module in model.modules() if parts else ():
        if isinstance(module, torch.nn.GroupNorm):
            module.register_forward_pre_hook(_ask_for_gradient)


def _ask_for_gradient(norm, inputs):
    """Let a group norm behind frozen layers compute its input's gradient, which nobody needs.

    Otherwise PyTorch (2.11 and 2.13, on CPUs) dies of a segmentation fault: its backward pass for channels_last writes
    this gradient whether or not there is memory for it.
    """
    learns = any(weight.requires_grad for weight in norm.parameters())
    if learns and torch.is_grad_enabled() and not inputs[0].requires_grad:
        return (inputs[0].detach().requires_grad_(),)
    return None


def train(recipe: dict, *, run_dir: str | Path, resume: bool = True, progress: bool = True) -> VQGAN:
    """Train the VQGAN of a recipe on the emoji training split, and write `[output] path`; return the averaged model.

    Under `torchrun` the processes share each batch; the first of them writes.

    Raises:
        ValueError: the recipe names a field or a data source that does not exist, or `run_dir` holds another run.
    """
    data_settings = section(recipe, "data", {"source": "emoji", "split": "train"})
    output = section(recipe, "output", {"path": "src/minidalle/checkpoints/emoji/vqgan"})["path"]
    if data_settings["source"] != "emoji":
        raise ValueError(f'[data] source is {data_settings["source"]!r}; expected "emoji"')
    data = emoji.load()
    rows = data.split(data_settings["split"])
    images = torch.from_numpy(data.images[rows]).permute(0, 3, 1, 2)
    config, training = (
        VQGANConfig(**recipe["model"]),
        VQGANTraining(**section(recipe, "train", asdict(VQGANTraining()) | {"frozen": []})),  # TOML has no tuples
    )
    with distributed.joined() as device:
        run = Run(config, training, images, seed=recipe["seed"], folder=run_dir, device=device)
        if resume:
            run.resume()
        elif (Path(run_dir) / "state.pt").exists():
            raise ValueError(f"{run_dir} already holds a run; resume it, or give another folder")
        model = run.fit(progress)
        if distributed.rank() == 0:
            export(model, output)
        distributed.wait_for_all()
    return model

"""The headline claims about DALL·E mini, computed again, each with what had to be assumed.

Claimed in its repository's citation (borisdayma/dalle-mini, CITATION.cff): 27 times smaller than DALL·E, trained on one TPU v3-8
in three days. Told in articles: reproducible for some two hundred dollars on spot machines.
"""

from dataclasses import dataclass

from . import cost
from .slices import find_slice

DALLE_PARAMETERS = 12e9  # Ramesh et al. 2021, abstract
DALLE_TOKENS = 256 + 1024  # of text and of picture in one stream: section 2
DALLE_PICTURES = 430_000 * 1024  # updates × batch: appendix B.2
DAYS = 3
SLICE = "v3-8"


@dataclass(frozen=True)
class Claim:
    """One number beside what was said of it.

    Attributes:
        about: what the number is.
        found: the number.
        unit: of it.
        claimed: what was said, "" where nothing was.
        assumptions: what must hold for the number to hold.
    """

    about: str
    found: float
    unit: str
    claimed: str
    assumptions: tuple[str, ...]


def claims(step_seconds: float | None = None, batch: int = 272) -> list[Claim]:
    """All of them, in the order in which they build on each other.

    Args:
        step_seconds: of a training step of mini on a v3-8 over `batch` pictures, as `tpu.compile_training` gives; None takes
            the time below which arithmetic says no step can stay.
        batch: 34 pictures a core, as the original's command for mini had.

    Raises:
        ValueError: step_seconds or batch is not positive.
    """
    if batch < 1 or (step_seconds is not None and not step_seconds > 0):
        raise ValueError(f"step_seconds {step_seconds} and batch {batch} must be positive")
    rented = find_slice(SLICE)
    parameters = cost.dallebart_parameters(cost.MINI)
    operations = cost.training_operations(cost.MINI)
    if step_seconds is None:
        share = batch // rented.devices
        step_seconds = cost.training_seconds(cost.MINI, share, rented.device)["all"]
        timed = "devices work at the peak of their data sheet and send nothing"
    else:
        timed = "a step takes as long as the compiler estimates, and nothing waits for data"
    size = (
        "mini is the checkpoint of 2022; the claim is of 2021, whose network was of about the same size, "
        "but had another layout"
    )
    optimizer = "AdamW instead of the original's distributed Shampoo (2022) or Adafactor (2021), and no evaluations"
    hours = DAYS * 24
    pictures = hours * 3600 / step_seconds * batch
    dalle = 6 * DALLE_PARAMETERS * DALLE_TOKENS
    return [
        Claim("parameters of mini", parameters, "", "about 0.4 billion", (size,)),
        Claim("times smaller than DALL·E", DALLE_PARAMETERS / parameters, "×", "27", (size, "12 billion is exact")),
        Claim(
            "operations to learn from one picture",
            operations,
            "FLOP",
            "",
            ("matrix products alone", "each backward pass is twice the forward pass", "what is recomputed is not counted"),
        ),
        Claim(
            "times fewer than DALL·E's for one picture",
            dalle / operations,
            "×",
            "",
            ("DALL·E's are 6 · parameters · tokens", "all its attention is as dense as its parameters say"),
        ),
        Claim("one step on a v3-8", step_seconds, "s", "", (timed, f"{batch} pictures, bfloat16, gradient checkpointing", optimizer)),
        Claim("pictures seen in three days", pictures, "", "", (timed, optimizer, "72 hours without a break")),
        Claim(
            "share of DALL·E's pictures seen",
            pictures / DALLE_PICTURES,
            "×",
            "",
            (timed, optimizer, "430,000 updates of 1,024 pictures for DALL·E"),
        ),
        Claim("three days on demand", rented.dollars(hours, spot=False), "US dollars", "", ("prices of 2022, us-central1",)),
        Claim(
            "three days on spot machines",
            rented.dollars(hours),
            "US dollars",
            "some 200",
            ("prices of 2022, us-central1", "no work is lost when the machine is taken away", "the TPU's machine is in the price"),
        ),
    ]  # fmt: skip

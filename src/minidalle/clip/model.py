"""CLIP: a picture and a caption, each put through a transformer, meet as two vectors in one space.

Notable, all as in openai/clip-vit-base-patch32:
- norms stand before attention and MLP; the picture has one more before its first layer;
- the picture's vector is read at a class token, the caption's at its end token, where a causal mask has let it see all;
- the projections into the common space have no bias, and the temperature is learned as its logarithm;
- layers are stacked, layer axis first, and run by one scan over depth.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from minidalle.clip.config import CLIPConfig, CLIPTextConfig, CLIPVisionConfig
from minidalle.training.placement import by_rows

ACTIVATION: dict[str, Callable[[jax.Array], jax.Array]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
}


class Layer(nnx.Module):
    """One transformer layer: x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(
        self, config: CLIPTextConfig | CLIPVisionConfig, *, rngs: nnx.Rngs, dtype: DTypeLike, param_dtype: DTypeLike
    ) -> None:
        width, factor = config.hidden_size, config.initializer_factor
        # What writes into the residual stream starts smaller the deeper the network (Radford et al. 2019, section 2.3).
        reading = factor * width**-0.5
        writing = reading * (2 * config.num_hidden_layers) ** -0.5

        def linear(inputs: int, outputs: int, deviation: float) -> nnx.Linear:
            init = nnx.initializers.normal(deviation)
            return nnx.Linear(inputs, outputs, kernel_init=init, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

        norm = partial(_norm, config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.heads = config.num_attention_heads
        self.activation = config.hidden_act
        self.norm1 = norm()
        self.query, self.key, self.value = (linear(width, width, reading) for _ in range(3))
        self.out = linear(width, width, writing)
        self.norm2 = norm()
        self.fc1 = linear(width, config.intermediate_size, reading * 2**-0.5)
        self.fc2 = linear(config.intermediate_size, width, writing)

    def __call__(self, x: jax.Array, visible: jax.Array | None) -> jax.Array:
        """x: (B, T, D); visible: booleans that broadcast to (B, 1, T, T), None for all."""
        x = x + self.attend(self.norm1(x), visible)
        return x + self.fc2(ACTIVATION[self.activation](self.fc1(self.norm2(x))))

    def attend(self, x: jax.Array, visible: jax.Array | None) -> jax.Array:
        """Attention of every position to all visible ones, head by head; the softmax is in float32."""
        split = (*x.shape[:-1], self.heads, x.shape[-1] // self.heads)
        query, key, value = (project(x).reshape(split) for project in (self.query, self.key, self.value))
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key).astype(jnp.float32) * split[-1] ** -0.5  # (B, H, T, T)
        if visible is not None:
            logits = jnp.where(visible, logits, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        return self.out(jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(x.shape))


class TextTransformer(nnx.Module):
    """Captions to vectors, before the projection."""

    def __init__(self, config: CLIPTextConfig, *, rngs: nnx.Rngs, dtype: DTypeLike, param_dtype: DTypeLike) -> None:
        self.config = config
        factor, width = config.initializer_factor, config.hidden_size
        self.token_embedding = nnx.Embed(
            config.vocab_size,
            width,
            embedding_init=nnx.initializers.normal(0.02 * factor),
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.position_embedding = _normal((config.max_position_embeddings, width), 0.01 * factor, rngs, param_dtype)
        self.layers = stacked_layers(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.final_norm = _norm(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)

    def __call__(self, text_ids: jax.Array, text_mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """(B, T) ids and mask -> every position's state (B, T, D), and the one that stands for the caption (B, D)."""
        length = text_ids.shape[1]
        x = self.token_embedding(text_ids)
        x = x + self.position_embedding[:length].astype(x.dtype)
        visible = jnp.tril(jnp.ones((length, length), bool))[None, None]
        if text_mask is not None:
            visible = visible & (text_mask[:, None, None, :] != 0)
        states = self.final_norm(run_layers(self.layers, x, visible))
        if self.config.pooling == "argmax":
            position = text_ids.argmax(axis=1)
        else:
            position = (text_ids == self.config.eos_token_id).argmax(axis=1)
        return states, jnp.take_along_axis(states, position[:, None, None], axis=1)[:, 0]


class VisionTransformer(nnx.Module):
    """Pictures, already resized and normalised, to vectors before the projection (Dosovitskiy et al. 2021)."""

    def __init__(self, config: CLIPVisionConfig, *, rngs: nnx.Rngs, dtype: DTypeLike, param_dtype: DTypeLike) -> None:
        self.config = config
        factor, width = config.initializer_factor, config.hidden_size
        self.class_embedding = _normal((width,), factor * width**-0.5, rngs, param_dtype)
        # A convolution whose stride is its size is one matrix product over patches laid flat.
        self.patch_embedding = nnx.Linear(
            config.patch_size**2 * config.num_channels,
            width,
            use_bias=False,
            kernel_init=nnx.initializers.normal(0.02 * factor),
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.position_embedding = _normal((config.patches + 1, width), 0.02 * factor, rngs, param_dtype)
        norm = partial(_norm, config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.pre_norm = norm()
        self.layers = stacked_layers(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.post_norm = norm()

    def __call__(self, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, S, S, 3) -> every position's state (B, 1 + patches, D), and the normed class token (B, D)."""
        x = self.patch_embedding(patches(pixels, self.config.patch_size))  # (B, patches, D)
        first = jnp.broadcast_to(self.class_embedding[...].astype(x.dtype), (x.shape[0], 1, x.shape[2]))
        x = jnp.concatenate([first, x], axis=1) + self.position_embedding[...].astype(x.dtype)
        states = run_layers(self.layers, self.pre_norm(x), None)
        return states, self.post_norm(states[:, 0])


class CLIP(nnx.Module):
    """The two towers and the space where they meet (Radford et al. 2021, figure 3).

    dtype is what is computed in, param_dtype what the parameters are kept in. `logit_scale` is a parameter, the
    logarithm of the factor on cosine similarities.
    """

    def __init__(
        self,
        config: CLIPConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        self.config = config
        self.text = TextTransformer(config.text_config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.vision = VisionTransformer(config.vision_config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)

        def projection(inputs: int) -> nnx.Linear:
            init = nnx.initializers.normal(inputs**-0.5 * config.initializer_factor)
            return nnx.Linear(
                inputs,
                config.projection_dim,
                use_bias=False,
                kernel_init=init,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )

        self.text_projection = projection(config.text_config.hidden_size)
        self.visual_projection = projection(config.vision_config.hidden_size)
        self.logit_scale = nnx.Param(jnp.asarray(config.logit_scale_init_value, param_dtype))

    def encode_text(self, text_ids: jax.Array, text_mask: jax.Array | None = None) -> jax.Array:
        """Captions (B, T), T at most `max_position_embeddings`, as features (B, projection_dim), not yet normalised.

        Raises ValueError when T is too long. Whatever stands after the end token has no influence.
        """
        longest = self.config.text_config.max_position_embeddings
        if text_ids.ndim != 2 or text_ids.shape[1] > longest:
            raise ValueError(f"text_ids have shape {text_ids.shape}; expected (batch, length) with length <= {longest}")
        return self.text_projection(self.text(text_ids, text_mask)[1])

    def encode_image(self, images: jax.Array) -> jax.Array:
        """Pictures (B, H, W, 3) of any size, floats in [0, 1], as features (B, projection_dim), not yet normalised."""
        return self.encode_pixels(preprocess(images, self.config.vision_config))

    def encode_pixels(self, pixels: jax.Array) -> jax.Array:
        """The same for pictures that `preprocess` has already brought to size and normalised."""
        return self.visual_projection(self.vision(pixels)[1])


def preprocess(images: jax.Array, config: CLIPVisionConfig) -> jax.Array:
    """Pictures (B, H, W, 3) in [0, 1] as the vision tower wants them: (B, image_size, image_size, 3), normalised.

    As CLIPImageProcessor does it: the shorter side is resized to image_size (bicubic, antialiased), the middle is cut
    out, and (x − mean) / std taken. Raises ValueError for another shape and for whole numbers.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"images are {images.dtype} of shape {images.shape}; expected floats in [0, 1] of shape (batch, H, W, 3); "
            "divide bytes by 255"
        )
    size = config.image_size
    height, width = images.shape[1:3]
    short = min(height, width)
    if short != size:
        height, width = size * height // short, size * width // short
        shape = (images.shape[0], height, width, 3)
        images = jnp.clip(jax.image.resize(images, shape, "cubic", antialias=True), 0, 1)
    top, left = (height - size) // 2, (width - size) // 2
    images = images[:, top : top + size, left : left + size]
    return (images - jnp.asarray(config.image_mean, images.dtype)) / jnp.asarray(config.image_std, images.dtype)


def patches(pixels: jax.Array, size: int) -> jax.Array:
    """(B, H, W, C) cut into squares, row by row, each laid flat: (B, H·W / size², size²·C)."""
    batch, height, width, channels = pixels.shape
    grid = pixels.reshape(batch, height // size, size, width // size, size, channels).swapaxes(2, 3)
    return grid.reshape(batch, -1, size * size * channels)


def stacked_layers(
    config: CLIPTextConfig | CLIPVisionConfig, *, rngs: nnx.Rngs, dtype: DTypeLike, param_dtype: DTypeLike
) -> Layer:
    """All layers of a tower as one `Layer` whose parameters have the layer axis first, each with its own random start."""

    @nnx.split_rngs(splits=config.num_hidden_layers)
    @nnx.vmap(in_axes=0, out_axes=0)
    def create(rngs: nnx.Rngs) -> Layer:
        return Layer(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)

    return create(rngs)


def run_layers(layers: Layer, x: jax.Array, visible: jax.Array | None) -> jax.Array:
    """x (B, T, D) through all stacked layers."""
    graph, parameters = nnx.split(layers)

    def step(x: jax.Array, layer: nnx.State) -> tuple[jax.Array, None]:
        return by_rows(nnx.merge(graph, layer)(x, visible)), None

    return jax.lax.scan(step, by_rows(x), parameters)[0]


def _norm(
    config: CLIPTextConfig | CLIPVisionConfig, *, rngs: nnx.Rngs, dtype: DTypeLike, param_dtype: DTypeLike
) -> nnx.LayerNorm:
    return nnx.LayerNorm(
        config.hidden_size,
        epsilon=config.layer_norm_eps,
        dtype=dtype,
        param_dtype=param_dtype,
        # E[x²] − E[x]² loses the digits that the comparison with PyTorch needs.
        use_fast_variance=False,
        rngs=rngs,
    )


def _normal(shape: tuple[int, ...], deviation: float, rngs: nnx.Rngs, param_dtype: DTypeLike) -> nnx.Param:
    return nnx.Param(deviation * jax.random.normal(rngs.params(), shape, param_dtype))

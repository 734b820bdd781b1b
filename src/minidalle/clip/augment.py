"""Pictures spoiled on purpose, so that CLIP judges what a picture shows and not how cleanly it is drawn.

What CLIP ranks later comes out of a VQGAN: a little soft, a little blotchy, never quite in place. So a training picture is
moved, turned and scaled on its white ground, blurred, compressed, made noisy. Hue is left alone, since skin tones are
told by it, and nothing is mirrored, since left and right, clocks and flags would become untrue.
"""

import io

import numpy as np
from PIL import Image, ImageFilter

SHIFT, TURN, ZOOM = 3.0, 6.0, 0.08  # pixels of 64, degrees, fraction
BLUR, NOISE = 1.3, 0.03  # pixels of 64, standard deviation of [0, 1]
CONTRAST, BRIGHTNESS = 0.08, 0.03
WHITE = (255, 255, 255)


def augment(images: np.ndarray, generator: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Spoil each picture of (B, H, W, 3) uint8 in its own way; the same generator state gives the same pictures.

    strength scales every amount: 0 returns the pictures as they are, 1 is meant for 64×64.
    """
    if strength == 0:
        return images
    return np.stack([_augment_one(image, generator, strength) for image in images])


def soften(images: np.ndarray, blur: float = 1.0) -> np.ndarray:
    """The same blur for every picture (B, H, W, 3) uint8: a stand-in for a VQGAN's output in an evaluation."""
    spoiled = ImageFilter.GaussianBlur(blur)
    return np.stack([np.asarray(Image.fromarray(image).filter(spoiled)) for image in images])


def _augment_one(image: np.ndarray, generator: np.random.Generator, strength: float) -> np.ndarray:
    # Every number is drawn whether it is used or not, so that one choice does not shift the randomness of the next.
    moved, blurred, compressed, noisy = generator.random(4) < (0.8, 0.5, 0.3, 0.3)
    shift_x, shift_y, turn, zoom, contrast, brightness = (generator.uniform(-1, 1, 6) * strength).tolist()
    blur, quality, noise = generator.random(3).tolist()
    grain = generator.standard_normal(image.shape, dtype=np.float32)

    picture = Image.fromarray(image)
    pixel = image.shape[0] / 64
    if moved:
        picture = _move(picture, shift_x * SHIFT * pixel, shift_y * SHIFT * pixel, turn * TURN, 1 + zoom * ZOOM)
    if blurred:
        picture = picture.filter(ImageFilter.GaussianBlur(blur * BLUR * strength * pixel))
    if compressed:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=int(75 - 50 * quality * min(strength, 1)))
        picture = Image.open(file)
    values = np.asarray(picture, np.float32)
    # Around white, not around grey: the ground stays white, as it always is.
    values = 255 + (values - 255) * (1 + contrast * CONTRAST) + 255 * brightness * BRIGHTNESS
    if noisy:
        values = values + grain * (255 * noise * NOISE * strength)
    return values.clip(0, 255).round().astype(np.uint8)


def _move(picture: Image.Image, shift_x: float, shift_y: float, degrees: float, zoom: float) -> Image.Image:
    angle = np.deg2rad(degrees)
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    centre_x, centre_y = (picture.width - 1) / 2, (picture.height - 1) / 2
    # Pillow asks where each output pixel comes from: turned and scaled about the centre, then shifted.
    from_x, from_y = centre_x + shift_x, centre_y + shift_y
    matrix = (
        cosine, sine, centre_x - cosine * from_x - sine * from_y,
        -sine, cosine, centre_y + sine * from_x - cosine * from_y,
    )  # fmt: skip
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=WHITE)

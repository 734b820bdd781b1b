"""Does this picture match this caption? CLIP, trained here or loaded from Hugging Face."""

from minidalle.clip.config import CLIPConfig, CLIPTextConfig, CLIPVisionConfig
from minidalle.clip.model import CLIP, preprocess
from minidalle.clip.objective import contrastive_loss, normalize

__all__ = ["CLIP", "CLIPConfig", "CLIPTextConfig", "CLIPVisionConfig", "contrastive_loss", "normalize", "preprocess"]

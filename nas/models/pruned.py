"""Pruned image networks: the source as a ``VideoUNet``, and the network of a layout with the weights it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nas.core.schema import to_data
from nas.models.unet import VideoUNet
from nas.models.weights import source_keys
from search_spaces.pruning import backbone_of, full_layout, no_temporal_layers

if TYPE_CHECKING:
    from search_spaces.backbone import BackboneSpec
    from search_spaces.pruning import Layout, SourceUNet


def build_source(source: SourceUNet) -> VideoUNet:
    """The unpruned network with fresh weights; its keys are those of diffusers' ``UNet2DConditionModel``."""
    return _build(backbone_of(source, full_layout(source), name=source.name))


@torch.no_grad()
def build_pruned(network: VideoUNet, source: SourceUNet, layout: Layout, *, name: str) -> VideoUNet:
    """The network of a layout with the kept weights of ``network``, which was made by ``build_source``."""
    pruned = _build(backbone_of(source, layout, name=name))
    weights = dict(network.named_parameters())
    for key, origin in source_keys(pruned).items():
        pruned.get_parameter(key).copy_(weights[origin])
    return pruned.to(network.dtype)


def _build(spec: BackboneSpec) -> VideoUNet:
    architecture = no_temporal_layers(spec)
    return VideoUNet(space=architecture.space, choices=dict(architecture.choices), backbone=to_data(spec))

"""The video UNet: an image UNet of diffusers' blocks with temporal layers in its slots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from nas.core.architecture import Architecture
from nas.core.schema import from_data
from nas.models.temporal import build_temporal_stack, share_text
from search_spaces.backbone import BackboneSpec
from search_spaces.layers import temporal_depth, temporal_spec
from search_spaces.workload import slot_setting

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from search_spaces.backbone import ResidualBlock, Stage

NORM_EPS = 1e-5  # SD v1.5's unet/config.json


def make_resnet(in_channels: int, out_channels: int, *, time_width: int, groups: int) -> ResnetBlock2D:
    """Diffusers' ResNet block with the settings of SD v1.5; ``in_channels`` includes the skip's."""
    return ResnetBlock2D(
        in_channels=in_channels, out_channels=out_channels, temb_channels=time_width, groups=groups, eps=NORM_EPS
    )


def make_spatial_attention(channels: int, *, heads: int, groups: int, text_width: int) -> Transformer2DModel:
    """Diffusers' spatial transformer with one block, as in SD v1.5; frames of a clip share its text."""
    module = Transformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=channels // heads,
        in_channels=channels,
        norm_num_groups=groups,
        cross_attention_dim=text_width,
    )
    share_text(module)
    return module


class UNetStage(nn.Module):
    """Modules of one stage under the names diffusers gives them; the order of calls is the video UNet's."""

    def __init__(self, stage: Stage, backbone: BackboneSpec) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            make_resnet(
                block.in_channels + block.skip_channels,
                block.out_channels,
                time_width=backbone.time_width,
                groups=backbone.norm_groups,
            )
            for block in stage.blocks
        )
        self.attentions = nn.ModuleDict(
            {
                str(index): make_spatial_attention(
                    block.out_channels,
                    heads=backbone.attention_heads,
                    groups=backbone.norm_groups,
                    text_width=backbone.text_width,
                )
                for index, block in enumerate(stage.blocks)
                if block.attention
            }
        )
        if stage.resample == "down":
            self.downsamplers = nn.ModuleList([Downsample2D(stage.out_channels, use_conv=True, name="op")])
        if stage.resample == "up":
            self.upsamplers = nn.ModuleList([Upsample2D(stage.out_channels, use_conv=True)])


class VideoUNet(ModelMixin, ConfigMixin):  # type: ignore[misc]  # how diffusers' own models inherit
    """Denoiser of latent video: spatial blocks see frames as a batch, temporal layers mix them.

    Spatial modules carry SD v1.5's names with indices counted anew; ``nas.models.weights`` maps them back. The
    configuration is plain JSON, so ``from_pretrained`` needs nothing else.

    Shapes: B batch, T frames, C channels, H height, W width, N text tokens, D text width.

    Args:
        space: Identifier of the search space: ``tiny/1``.
        choices: Canonical choices of the architecture.
        backbone: ``BackboneSpec`` as plain data.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(self, space: str, choices: dict[str, Any], backbone: dict[str, Any]) -> None:
        super().__init__()
        spec = from_data(BackboneSpec, backbone, where="config.backbone")
        self.spec = spec
        self.architecture = Architecture(space, choices)
        self.gradient_checkpointing = False
        base = spec.base_channels
        self.conv_in = nn.Conv2d(spec.latent_channels, base, 3, padding=1)
        self.time_proj = Timesteps(base, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(base, spec.time_width)
        self.down_blocks = nn.ModuleList(UNetStage(stage, spec) for stage in spec.stages if stage.name[:4] == "down")
        self.mid_block = UNetStage(next(stage for stage in spec.stages if stage.name == "mid"), spec)
        self.up_blocks = nn.ModuleList(UNetStage(stage, spec) for stage in spec.stages if stage.name[:2] == "up")
        self.conv_norm_out = nn.GroupNorm(spec.norm_groups, spec.stages[-1].out_channels, eps=NORM_EPS)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(spec.stages[-1].out_channels, spec.latent_channels, 3, padding=1)
        self.temporal_layers = nn.ModuleDict(_temporal_layers(spec, self.architecture))
        self._last_user = {
            block.skip: f"{stage.name}.{index}"
            for stage in spec.stages
            for index, block in enumerate(stage.blocks)
            if block.skip
        }

    def to(self, *args: Any, **kwargs: Any) -> VideoUNet:  # type: ignore[override]  # theirs is wrapped
        """Move or cast in place, as ``nn.Module.to``; ``channels_last`` applies to two-dimensional convolutions.

        Torch's own refuses ``channels_last`` where a network also has three-dimensional convolutions; those get
        ``channels_last_3d``. Diffusers 0.42 warns at every cast that no module at all should stay in float32; its
        override, which otherwise only guards quantised and offloaded models, is skipped.
        """
        memory_format = kwargs.pop("memory_format", None)
        if args or kwargs:
            nn.Module.to(self, *args, **kwargs)
        if memory_format is not None:
            formats = {4: memory_format, 5: memory_format}
            if memory_format in (torch.channels_last, torch.channels_last_3d):
                formats = {4: torch.channels_last, 5: torch.channels_last_3d}
            for parameter in self.parameters():
                if parameter.ndim in formats:
                    parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])
        return self

    def stage(self, name: str) -> UNetStage:
        """Modules of the stage ``down0``, ``mid`` or ``up0``."""
        if name == "mid":
            return self.mid_block
        blocks = self.down_blocks if name.startswith("down") else self.up_blocks
        return cast("UNetStage", blocks[int(name.removeprefix("down").removeprefix("up"))])

    def temporal_layer(self, slot: str) -> nn.Module | None:
        """Temporal layer of a slot (``down0.0``), or ``None`` where there is none."""
        key = temporal_key(slot)
        return self.temporal_layers[key] if key in self.temporal_layers else None  # noqa: SIM401  # it has no get()

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, skipped: Collection[str] = ()
    ) -> Tensor:
        """Predict the velocity of noisy latents.

        A clip of one frame is an image: temporal layers are skipped.

        Args:
            sample: Noisy latents (B, T, C, H, W).
            timestep: Time (B,) on the scale 0 to 1000.
            encoder_hidden_states: Text (B, N, D).
            skipped: Parts to leave out, as in a pruned network: blocks (``down0.1``), spatial transformers
                (``down0.1.attention``), stages (``down3``) and changes of resolution (``down2.downsample``); see
                ``search_spaces.pruning.skipped_parts``.

        Returns:
            Velocity (B, T, C, H, W).

        Raises:
            ValueError: A shape does not fit, or the clip has more frames than there are positions.
        """
        return _Pass(self, sample, timestep, encoder_hidden_states, skipped=skipped).decode()

    def forward_with_features(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, skipped: Collection[str] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """Return ``forward`` and ``encode`` of the same inputs in one pass; a skipped stage has no features."""
        run = _Pass(self, sample, timestep, encoder_hidden_states, keep_features=True, skipped=skipped)
        return run.decode(), run.features

    def encode(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> list[Tensor]:
        """Features (B, T, C, H, W) of every down stage, before it is down-sampled, and of the middle.

        Takes the arguments of ``forward``; nothing behind the middle is computed, and gradients flow.
        """
        run = _Pass(self, sample, timestep, encoder_hidden_states, keep_features=True)
        run.encode()
        return run.features


class _Pass:
    """One pass through the network: the tensor that flows and the skips that wait."""

    def __init__(
        self,
        model: VideoUNet,
        sample: Tensor,
        timestep: Tensor,
        text: Tensor,
        *,
        keep_features: bool = False,
        skipped: Collection[str] = (),
    ) -> None:
        _check_inputs(model.spec, sample, timestep, text)
        self.model = model
        self.batch, self.frames = sample.shape[:2]
        self.text = text
        self.keep_features = keep_features
        self.skipped = skipped
        self.features: list[Tensor] = []
        self.kept: dict[str, Tensor] = {}
        time = model.time_embedding(model.time_proj(timestep.reshape(-1)).to(sample.dtype))
        # One clip's time broadcasts over its frames; only a batch of clips needs a row per frame.
        self.time = time if self.batch == 1 else time.repeat_interleave(self.frames, dim=0)
        self.hidden = model.conv_in(sample.reshape(-1, *sample.shape[2:]))
        self.keep("conv_in")

    def keep(self, name: str) -> None:
        if name in self.model._last_user:
            self.kept[name] = self.hidden

    def take(self, name: str, user: str) -> Tensor:
        return self.kept.pop(name) if self.model._last_user[name] == user else self.kept[name]

    def encode(self) -> None:
        for stage in self.model.spec.stages:
            if not stage.name.startswith("up"):
                self.run_stage(stage)

    def decode(self) -> Tensor:
        self.encode()
        for stage in self.model.spec.stages:
            if stage.name.startswith("up"):
                self.run_stage(stage)
        model = self.model
        hidden = model.conv_out(model.conv_act(model.conv_norm_out(self.hidden)))
        return hidden.reshape(self.batch, self.frames, *hidden.shape[1:])

    def run_stage(self, stage: Stage) -> None:
        if stage.name in self.skipped:
            return
        modules = self.model.stage(stage.name)
        for index, block in enumerate(stage.blocks):
            self.run_block(f"{stage.name}.{index}", index, block, modules)
        if self.keep_features and not stage.name.startswith("up"):
            self.features.append(self.hidden.reshape(self.batch, self.frames, *self.hidden.shape[1:]))
        if f"{stage.name}.{stage.resample}sample" in self.skipped:
            return
        if stage.resample == "down":
            self.hidden = modules.downsamplers[0](self.hidden)
            self.keep(f"{stage.name}.downsample")
        if stage.resample == "up":
            self.hidden = modules.upsamplers[0](self.hidden)

    def run_block(self, name: str, index: int, block: ResidualBlock, modules: UNetStage) -> None:
        if name in self.skipped:
            self.keep(name)  # for the way up, what the block would have got
            return
        if block.skip:
            self.hidden = torch.cat([self.hidden, self.take(block.skip, name)], dim=1)
        self.hidden = self.call(modules.resnets[index], self.hidden, self.time)
        if block.attention and f"{name}.attention" not in self.skipped:  # checkpoints its own transformer block
            self.hidden = modules.attentions[str(index)](self.hidden, self.text, return_dict=False)[0]
        layer = self.model.temporal_layer(name)
        if layer is not None and self.frames > 1:
            video = self.hidden.reshape(self.batch, self.frames, *self.hidden.shape[1:])
            self.hidden = self.call(layer, video, self.text).reshape(self.hidden.shape)
        self.keep(name)

    def call(self, module: nn.Module, *arguments: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self.model.gradient_checkpointing:
            return cast("Tensor", self.model._gradient_checkpointing_func(module, *arguments))
        return cast("Tensor", module(*arguments))


def temporal_key(slot: str) -> str:
    """Key of a slot in ``VideoUNet.temporal_layers``; module names cannot hold dots."""
    return slot.replace(".", "_")


def _temporal_layers(spec: BackboneSpec, choices: Mapping[str, Any]) -> dict[str, nn.Module]:
    layers = {}
    for slot in spec.slots:
        channels = spec.slot_channels(slot)
        setting = slot_setting(choices, slot)
        block = temporal_spec(spec, setting, channels=channels, frames=1, height=1, width=1)
        if block is not None:
            layers[temporal_key(slot)] = build_temporal_stack(block, temporal_depth(setting))
    return layers


def _check_inputs(spec: BackboneSpec, sample: Tensor, timestep: Tensor, text: Tensor) -> None:
    if sample.ndim != 5 or sample.shape[2] != spec.latent_channels:
        raise ValueError(
            f"sample must be (batch, frames, {spec.latent_channels}, height, width), got {tuple(sample.shape)}"
        )
    if sample.shape[1] > spec.max_frames:
        raise ValueError(f"sample has {sample.shape[1]} frames, {spec.name} has positions for {spec.max_frames}")
    if timestep.shape != sample.shape[:1]:
        raise ValueError(f"timestep must be ({sample.shape[0]},), one per clip, got {tuple(timestep.shape)}")
    if text.ndim != 3 or text.shape[0] != sample.shape[0] or text.shape[2] != spec.text_width:
        raise ValueError(
            f"encoder_hidden_states must be ({sample.shape[0]}, tokens, {spec.text_width}), got {tuple(text.shape)}"
        )

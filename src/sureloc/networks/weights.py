"""Trained networks from disk: safetensors for the numbers, a JSON card for everything else.

Nothing here can run code from a file: safetensors holds plain arrays, and the card is checked
against a model that refuses unknown keys. Pickles (.pt, .pth, .ckpt) are refused by name.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from safetensors import SafetensorError
from safetensors.torch import load as load_arrays
from safetensors.torch import save_file
from torch import Tensor, nn

from sureloc.diffusion.denoisers import Target
from sureloc.diffusion.schedules import (
    Levels,
    cosine,
    even_log_snr,
    karras,
    levels_of_sigmas,
    linear_beta,
    thinned,
)
from sureloc.errors import InputError, WeightsError
from sureloc.networks.phi import PaperPhi, Phi, PhiNetwork
from sureloc.networks.pixel_map import PixelMap
from sureloc.networks.psi import Psi, PsiNetwork, SplitPsi
from sureloc.networks.unet import UNetPsi
from sureloc.networks.weight_files import weight_files
from sureloc.shipped import fingerprint

PositiveFloat = Annotated[float, Field(gt=0)]
# Recipes of training have the same bounds, so that what is trained can be kept.
Size = Annotated[int, Field(ge=1, le=4096)]
Dilations = Annotated[
    tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1, max_length=64)
]
Blocks = Annotated[int, Field(ge=0, le=64)]
Overview = Annotated[int, Field(ge=0, le=16)]


def _round_a_pixel(windows: tuple[int, ...]) -> tuple[int, ...]:
    if any(side % 2 == 0 for side in windows) or len(set(windows)) < len(windows):
        raise ValueError(
            "the sides of squares round a pixel are odd numbers, each given once, such as "
            "[1, 3, 5, 9]"
        )
    return windows


Windows = Annotated[
    tuple[Annotated[int, Field(ge=1, le=33)], ...],
    Field(max_length=8),
    AfterValidator(_round_a_pixel),
]
Sigma = Annotated[float, Field(ge=1e-6, le=1e6)]
Rho = Annotated[float, Field(ge=0.1, le=1e3)]
Steps = Annotated[int, Field(ge=2, le=4096)]
Evaluations = Annotated[int, Field(ge=1, le=4096)]
Sigmas = Annotated[tuple[PositiveFloat, ...], Field(min_length=2, max_length=1000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PhiCard(_Strict):
    """Arguments of `sureloc.networks.phi.Phi`."""

    # Not written: cards, and fingerprints of runs that hold them, stay those of before.
    kind: Literal["fast"] = Field(default="fast", exclude=True)
    width: Size
    dilations: Dilations


class PaperPhiCard(_Strict):
    """Arguments of `sureloc.networks.phi.PaperPhi`."""

    kind: Literal["paper"]
    width: Size
    dilations: Dilations


class PsiCard(_Strict):
    """Arguments of `sureloc.networks.psi.Psi`."""

    kind: Literal["residual"] = "residual"
    conditioning: Literal["yhat", "x", "both"]
    condition_width: Size
    condition_blocks: Blocks
    width: Size
    dilations: Dilations
    embedding: Size
    overview: Overview = 0
    windows: Windows = ()


class SplitCard(_Strict):
    """Arguments of `sureloc.networks.psi.SplitPsi`."""

    kind: Literal["split"]
    sigma: Sigma
    noisier: PsiCard
    quieter: PsiCard


class UNetCard(_Strict):
    """Arguments of `sureloc.networks.unet.UNetPsi`, by default the paper's."""

    kind: Literal["unet"]
    conditioning: Literal["yhat", "x", "both"] = "both"
    width: Size = 64
    multipliers: Annotated[tuple[Size, ...], Field(min_length=1, max_length=8)] = (
        *(1, 2, 4, 8, 16),
    )
    blocks: Annotated[int, Field(ge=1, le=64)] = 2
    attention_halvings: Annotated[tuple[int, ...], Field(max_length=8)] = (2,)
    embedding: Size = 256

    @model_validator(mode="after")
    def _attention_is_reached(self) -> UNetCard:
        most = len(self.multipliers) - 1
        wanted = list(self.attention_halvings)
        if not all(0 <= halvings <= most for halvings in wanted):
            raise ValueError(
                f"attention_halvings is {wanted}, but {most + 1} multipliers give 0 to {most} "
                "halvings; attention elsewhere would never run"
            )
        return self


def check_ends(sigma_min: float, sigma_max: float) -> None:
    """Raise `ValueError` unless the ends of noise levels are in order."""
    if not sigma_min < sigma_max:
        raise ValueError(
            f"sigma_min is {sigma_min:g} and sigma_max {sigma_max:g}; the former must be the "
            "smaller one"
        )


class KarrasLevels(_Strict):
    """Noise levels of `sureloc.diffusion.schedules.karras`."""

    least_evaluations: ClassVar[int] = 1

    kind: Literal["karras"]
    sigma_min: Sigma
    sigma_max: Sigma
    rho: Rho

    @model_validator(mode="after")
    def _ends_are_in_order(self) -> KarrasLevels:
        check_ends(self.sigma_min, self.sigma_max)
        return self

    def levels(self, evaluations: int) -> Levels:
        """Give so many levels."""
        return karras(evaluations, self.sigma_min, self.sigma_max, self.rho)


class LinearBetaLevels(_Strict):
    """Noise levels of `sureloc.diffusion.schedules.linear_beta`."""

    least_evaluations: ClassVar[int] = 2

    kind: Literal["linear_beta"]
    steps: Steps = 100
    first: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    last: Annotated[float, Field(gt=0, lt=1)] = 1e-2

    @model_validator(mode="after")
    def _levels_can_be_told_apart(self) -> LinearBetaLevels:
        try:
            linear_beta(self.steps, self.first, self.last)
        except InputError as error:
            raise ValueError(
                f"steps is {self.steps}, first {self.first:g} and last {self.last:g}; the gammas "
                "of these steps reach 0 or 1, so give fewer steps, or first and last farther from "
                "0 and 1 (1e-4 and 1e-2 are usual)"
            ) from error
        return self

    def levels(self, evaluations: int) -> Levels:
        """Give so many levels, evenly from all steps."""
        return _thinned(linear_beta(self.steps, self.first, self.last), evaluations)


class CosineLevels(_Strict):
    """Noise levels of `sureloc.diffusion.schedules.cosine`."""

    least_evaluations: ClassVar[int] = 2

    kind: Literal["cosine"]
    steps: Steps = 100

    def levels(self, evaluations: int) -> Levels:
        """Give so many levels, evenly from all steps."""
        return _thinned(cosine(self.steps), evaluations)


class LogSnrLevels(_Strict):
    """Noise levels of `sureloc.diffusion.schedules.even_log_snr`."""

    least_evaluations: ClassVar[int] = 1

    kind: Literal["log_snr"]
    sigma_min: Sigma
    sigma_max: Sigma

    @model_validator(mode="after")
    def _falls(self) -> LogSnrLevels:
        check_ends(self.sigma_min, self.sigma_max)
        return self

    def levels(self, evaluations: int) -> Levels:
        """Give so many levels."""
        return even_log_snr(evaluations, self.sigma_min, self.sigma_max)


class ListLevels(_Strict):
    """Any noise levels.

    Attributes:
        sigmas: noises in units of the signal's rms, the noisiest first, 2 to 1000 of them.
    """

    least_evaluations: ClassVar[int] = 1

    kind: Literal["list"]
    sigmas: Sigmas

    @model_validator(mode="after")
    def _falls(self) -> ListLevels:
        try:
            levels_of_sigmas(self.sigmas)
        except InputError as error:
            raise ValueError(str(error)) from error
        return self

    def levels(self, evaluations: int) -> Levels:
        """Give the list itself; of other lengths, ln sigma interpolated between its places.

        Both ends stay; a single level is the noisiest one.
        """
        levels = levels_of_sigmas(self.sigmas)
        return levels[:1] if evaluations == 1 else _thinned(levels, evaluations)


PhiNetworkCard = Annotated[PhiCard | PaperPhiCard, Field(discriminator="kind")]
PsiNetworkCard = Annotated[PsiCard | SplitCard | UNetCard, Field(discriminator="kind")]
LevelsCard = Annotated[
    KarrasLevels | LinearBetaLevels | CosineLevels | LogSnrLevels | ListLevels,
    Field(discriminator="kind"),
]
_LEVELS: TypeAdapter[LevelsCard] = TypeAdapter(LevelsCard)
Data = Literal["residual", "image", "display"]
SamplerName = Literal["dpm_solver_2m", "ancestral", "ddim", "heun", "unipc"]


def _thinned(levels: Levels, evaluations: int) -> Float[Tensor, " fewer"]:
    return levels if evaluations == len(levels) else thinned(levels, evaluations)


class DrawsCard(_Strict):
    """How draws are made.

    Attributes:
        target: what Psi's output means (`sureloc.diffusion.denoisers`).
        data: what is drawn: y - yhat in units of its rms, y in such units, or y in [-1, 1].
        sampler: a function of `sureloc.diffusion.samplers`.
        evaluations: of Psi for one draw, at one noise level each; `heun` makes a second one at all
            levels but the last.
        pixel_map: their pixels are moved by a map that the weights hold
            (`sureloc.networks.pixel_map`).
    """

    target: Target = "preconditioned"
    data: Data = "residual"
    sampler: SamplerName = "dpm_solver_2m"
    evaluations: Evaluations = 8
    pixel_map: bool = False


class Card(_Strict):
    """What a weights file is: how to build its networks, and how they came to be.

    Attributes:
        format: version of this card.
        name, description: for people.
        phi, psi: how the networks are built.
        kernel_sigma_fine_px: kernel width of the images that they estimate, fine px.
        levels: noise levels of sampling.
        draws: how draws are made from them.
        training: recipes with their seeds, steps and hours.
        metrics: what was measured on held-out tiles.
    """

    format: Literal[1] = 1
    name: str
    description: str = ""
    phi: PhiNetworkCard
    psi: PsiNetworkCard
    kernel_sigma_fine_px: PositiveFloat
    levels: LevelsCard
    draws: DrawsCard = DrawsCard()
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _kinds_have_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        kinds = {"phi": "fast", "psi": "residual"}
        networks = {
            name: {"kind": kind} | values[name]
            for name, kind in kinds.items()
            if isinstance(values.get(name), dict)
        }
        return values | networks

    @model_validator(mode="after")
    def _draws_have_levels(self) -> Card:
        least = self.levels.least_evaluations
        if self.draws.evaluations < least:
            raise ValueError(
                f"draws.evaluations is {self.draws.evaluations} with levels of kind "
                f"{self.levels.kind}; it must be {least} or larger"
            )
        return self


@dataclass(frozen=True)
class Networks:
    """phi, Psi, their card, and what moves the pixels of draws, ready for inference."""

    phi: PhiNetwork
    psi: PsiNetwork
    card: Card
    pixel_map: PixelMap | None = None

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return self.psi.residual_scale.device

    @cached_property
    def cast_psi(self) -> PsiNetwork:
        """Psi with its convolutions in bfloat16, so that autocast need not cast them each time."""
        psi = copy.deepcopy(self.psi)
        for layer in psi.modules():
            if isinstance(layer, nn.Conv2d):
                layer.to(torch.bfloat16)
        return psi

    @property
    def radius_px(self) -> int | None:
        """Halo, camera px, with which a tile gives what the whole frame gives; None: none does."""
        reach = self.psi.radius_px
        return None if reach is None else self.phi.radius_px + reach


def build_phi(card: PhiCard | PaperPhiCard) -> PhiNetwork:
    """Build the phi that a card describes, with the weights of a fresh start."""
    kind = PaperPhi if isinstance(card, PaperPhiCard) else Phi
    return kind(card.width, card.dilations)


def build_psi(card: PsiCard | SplitCard | UNetCard, trunk_width: int) -> PsiNetwork:
    """Build the Psi that a card describes, with the weights of a fresh start.

    Args:
        card: its kind and size.
        trunk_width: channels of the features that phi gives.
    """
    if isinstance(card, SplitCard):
        noisier, quieter = (_residual_psi(c, trunk_width) for c in (card.noisier, card.quieter))
        return SplitPsi(card.sigma, noisier, quieter)
    if isinstance(card, PsiCard):
        return _residual_psi(card, trunk_width)
    return UNetPsi(**card.model_dump(exclude={"kind"}))


def _residual_psi(card: PsiCard, trunk_width: int) -> Psi:
    return Psi(trunk_width=trunk_width, **card.model_dump(exclude={"kind"}))


def build_networks(card: Card) -> Networks:
    """Build the networks that a card describes, not yet trained, for inference on the CPU."""
    phi = build_phi(card.phi)
    psi = build_psi(card.psi, phi.trunk_width)
    for network in (phi, psi):
        network.requires_grad_(False).eval()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Networks(phi, psi, card, PixelMap().eval() if card.draws.pixel_map else None)


def load_weights(
    name_or_path: str | Path = "default", device: torch.device | str = "cpu"
) -> Networks:
    """Load trained networks.

    Args:
        name_or_path: a name of `sureloc.shipped.shipped_weights`, the path of a .safetensors file
            whose card lies beside it as .json, or a folder that holds one such file.
        device: where the networks shall live.

    Returns:
        phi and Psi, frozen, and their card.

    Raises:
        WeightsError: there is no such file, it is no safetensors file, or file and card do not
            belong together.
    """
    blob, text, source = _read(name_or_path)
    arrays = _arrays(blob, source)
    networks = build_networks(_parse_card(text, source))
    for part, network in _parts(networks).items():
        _fill(network, arrays, part, source)
        network.to(device)
    return networks


def read_card(name_or_path: str | Path) -> tuple[Card, str]:
    """Read the card of weights and the fingerprint of their file, see `load_weights`.

    Raises:
        WeightsError: there are no such weights, or the card cannot be used.
    """
    blob, text, source = _read(name_or_path)
    return _parse_card(text, source), fingerprint(blob)


def read_levels(text: str) -> LevelsCard:
    """Read noise levels as a card names them, in JSON.

    Raises:
        InputError: it is no JSON, or no levels.
    """
    try:
        return _LEVELS.validate_json(text)
    except ValidationError as error:
        raise InputError(
            f"The levels {text!r} cannot be used: {_problems(error, 'they')}. Give JSON such as "
            '{"kind": "list", "sigmas": [80, 9, 0.3]}.'
        ) from error


def save_weights(networks: Networks, path: Path, card_path: Path | None = None) -> None:
    """Write networks as `path` (.safetensors) and their card, beside it (.json) by default."""
    arrays = {
        f"{part}.{name}": value.detach().cpu().contiguous()
        for part, network in _parts(networks).items()
        for name, value in network.state_dict().items()
    }
    save_file(arrays, path)
    card = json.dumps(networks.card.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (card_path or path.with_suffix(".json")).write_text(card + "\n", encoding="utf-8")


def _parts(networks: Networks) -> dict[str, nn.Module]:
    """Give what the file of weights holds, by the first part of its arrays' names."""
    parts: dict[str, nn.Module] = {"phi": networks.phi, "psi": networks.psi}
    return parts if networks.pixel_map is None else parts | {"pixel_map": networks.pixel_map}


def _read(name_or_path: str | Path) -> tuple[bytes, str, str]:
    weights, card, source = weight_files(name_or_path)
    try:
        return weights.read_bytes(), card.read_text(encoding="utf-8"), source
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(
            f"{source} or the card {card.name} beside it cannot be read: {error}. Both are needed."
        ) from error


def _arrays(blob: bytes, source: str) -> dict[str, Tensor]:
    try:
        return load_arrays(blob)
    except SafetensorError as error:
        raise WeightsError(
            f"{source} is named .safetensors but is none: {error}. Export the weights again."
        ) from error


def _parse_card(text: str, source: str) -> Card:
    try:
        return Card.model_validate_json(text)
    except ValidationError as error:
        raise WeightsError(
            f"The card of {source} cannot be used: {_problems(error, 'the file')}."
        ) from error


def _problems(error: ValidationError, whole: str) -> str:
    return "; ".join(
        f"{'.'.join(map(str, one['loc'])) or whole}: {one['msg'].rstrip('.')}"
        for one in error.errors()
    )


def _fill(network: nn.Module, arrays: dict[str, Tensor], part: str, source: str) -> None:
    own = {
        name.removeprefix(f"{part}."): value
        for name, value in arrays.items()
        if name.startswith(f"{part}.")
    }
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in own.items()}
    if wanted != given:
        wrong = sorted(n for n in wanted.keys() | given.keys() if wanted.get(n) != given.get(n))
        raise WeightsError(
            f"{source} does not fit its card: {part}.{wrong[0]} has shape {given.get(wrong[0])} "
            f"instead of {wanted.get(wrong[0])} ({len(wrong)} such arrays). Take file and card "
            "from the same export."
        )
    if not all(bool(value.isfinite().all()) for value in own.values()):
        raise WeightsError(f"{source} holds values that are not finite. Export it again.")
    network.load_state_dict(own)

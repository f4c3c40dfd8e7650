"""What a training run is made of, as a YAML recipe has it; unknown keys are refused."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal, Self

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from sureloc.diffusion.schedules import log_normal_gamma, piecewise_uniform_gamma
from sureloc.errors import InputError
from sureloc.networks.dropout import DropoutPhi
from sureloc.networks.phi import PhiNetwork
from sureloc.networks.weights import (
    Blocks,
    CosineLevels,
    Data,
    Dilations,
    DrawsCard,
    Evaluations,
    KarrasLevels,
    LevelsCard,
    LinearBetaLevels,
    ListLevels,
    Overview,
    PaperPhiCard,
    PhiCard,
    PsiCard,
    Rho,
    SamplerName,
    Sigma,
    Sigmas,
    Size,
    SplitCard,
    UNetCard,
    Windows,
    build_phi,
    check_ends,
)
from sureloc.simulate.tiles import TileConditions

PositiveFloat = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Range = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
Side = Annotated[int, Field(ge=8, le=256)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ConditionsRecipe(_Strict):
    """What training tiles look like; see `sureloc.simulate.tiles.TileConditions`."""

    sigma_px: Range = TileConditions.sigma_px
    mean_photons: Range = TileConditions.mean_photons
    photons: Range = TileConditions.photons
    visible_sds: Annotated[float, Field(ge=0)] = TileConditions.visible_sds
    density_per_px2: Range = TileConditions.density_per_px2
    empty_share: Share = TileConditions.empty_share
    blinking_share: Share = TileConditions.blinking_share
    target_photons: Annotated[float, Field(ge=0)] = TileConditions.target_photons
    background_e: Range = TileConditions.background_e
    unevenness: Annotated[float, Field(ge=0, le=2)] = TileConditions.unevenness
    read_noise_e: Range = TileConditions.read_noise_e
    hot_share: Share = TileConditions.hot_share
    multiplied_share: Share = TileConditions.multiplied_share

    @model_validator(mode="after")
    def _possible(self) -> Self:
        try:
            self.conditions()
        except InputError as error:
            raise ValueError(str(error)) from error
        return self

    def conditions(self) -> TileConditions:
        """Give the conditions that the simulation takes."""
        return TileConditions(**self.model_dump())


class FastPhiRecipe(_Strict):
    """phi at camera resolution; see `sureloc.networks.phi.Phi`."""

    kind: Literal["fast"]
    width: Size = 96
    dilations: Dilations = (1, 2, 2, 2, 1)

    def card(self) -> PhiCard:
        """Give what a weights file says of the network."""
        return PhiCard(**self.model_dump())


class PaperPhiRecipe(_Strict):
    """The paper's phi; see `sureloc.networks.phi.PaperPhi`."""

    kind: Literal["paper"]
    width: Size = 64
    dilations: Dilations = (1, 2, 4, 8, 4, 2)

    def card(self) -> PaperPhiCard:
        """Give what a weights file says of the network."""
        return PaperPhiCard(**self.model_dump())


class DropoutPhiRecipe(_Strict):
    """phi with dropout; see `sureloc.networks.dropout.DropoutPhi`."""

    kind: Literal["dropout"]
    width: Size = 96
    dilations: Dilations = (1, 2, 2, 2, 1)
    dropout: Annotated[float, Field(gt=0, lt=1)] = 0.1


PhiNetworkRecipe = Annotated[
    FastPhiRecipe | PaperPhiRecipe | DropoutPhiRecipe, Field(discriminator="kind")
]


def new_phi(network: PhiNetworkRecipe) -> PhiNetwork:
    """Build the phi that a recipe describes, with the weights of a fresh start."""
    if isinstance(network, DropoutPhiRecipe):
        return DropoutPhi(network.width, network.dilations, network.dropout)
    return build_phi(network.card())


class BatchRecipe(_Strict):
    """How many tiles a step sees, and how large they are.

    Attributes:
        tiles: tiles of a step.
        tile_px: their side.
        other_sides_px: sides that a step takes instead, each as often as `tile_px`, and so many
            tiles that they cover the same area: edges and small tiles are seen more often.
    """

    tiles: PositiveInt = 16
    tile_px: Side = 32
    other_sides_px: tuple[Side, ...] = ()

    @property
    def sides_px(self) -> tuple[int, ...]:
        """Sides that tiles may have."""
        return (self.tile_px, *self.other_sides_px)

    def tiles_of(self, side_px: int) -> int:
        """Give how many tiles of a side make a step."""
        return max(round(self.tiles * (self.tile_px / side_px) ** 2), 1)


class OptimizerRecipe(_Strict):
    """AdamW with a warm-up and a cosine down to a hundredth, and an average of the weights.

    Attributes:
        steps: optimizer steps.
        learning_rate: at the end of the warm-up.
        warmup_steps: steps of a linear rise.
        weight_decay: AdamW's.
        gradient_norm: gradients longer than this are shortened to it.
        averaging: decay of the exponential moving average that validation and shipping use.
    """

    steps: PositiveInt = 8000
    learning_rate: PositiveFloat = 1e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    gradient_norm: PositiveFloat = 1.0
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.999


class ValidationRecipe(_Strict):
    """How often the averaged weights are judged, and on what.

    Attributes:
        every_steps: optimizer steps from one validation to the next.
        tiles, tile_px: number and side of the held-out tiles.
        draws: of each tile.
        evaluations: of Psi for one of them, where the weights' own draws take more.
    """

    every_steps: PositiveInt = 250
    tiles: PositiveInt = 128
    tile_px: Side = 32
    draws: Annotated[int, Field(ge=2)] = 8
    evaluations: Evaluations = 8


class TrainingRecipe(_Strict):
    """What the training of any network is made of.

    Attributes:
        description: for people.
        seed: of weights, tiles and noise.
        kernel_sigma_fine_px: kernel width of the images that the network learns, fine px.
        conditions: what training tiles look like.
        batch: how many tiles a step sees, and how large they are.
        optimizer: how weights move.
        validation: how often they are judged, and on what.
        precision: "bfloat16" is used where the device multiplies it in hardware, float32 elsewhere.
    """

    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    kernel_sigma_fine_px: PositiveFloat = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    conditions: ConditionsRecipe = ConditionsRecipe()
    batch: BatchRecipe = BatchRecipe()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    validation: ValidationRecipe = ValidationRecipe()

    @model_validator(mode="after")
    def _ends_with_a_validation(self) -> Self:
        steps, every = self.optimizer.steps, self.validation.every_steps
        if steps % every:
            raise ValueError(
                f"optimizer.steps is {steps} and validation.every_steps {every}; the former must "
                "be a multiple of the latter, or the last steps would never be judged nor kept"
            )
        return self

    @property
    def footprint_px(self) -> float:
        """Fine pixels that one emitter's image covers: its mass squared over its sum of squares."""
        return 4 * math.pi * self.kernel_sigma_fine_px**2

    def fingerprint(self) -> str:
        """Give a short name of the whole recipe, its description left out."""
        values = self.model_dump(mode="json", exclude={"description"})
        # What came later and is not used makes no other recipe: older weights keep their name.
        unused: tuple[tuple[str, str, object], ...] = (
            ("network", "overview", 0),
            ("network", "windows", []),
            ("objective", "sums", 0),
            ("objective", "sums_above", 0),
            ("batch", "other_sides_px", []),
            ("noise", "sigmas", None),
        )
        for part, name, value in unused:
            if values.get(part, {}).get(name, ...) == value:
                del values[part][name]
        if values.get("sums") == 0:
            del values["sums"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


class PhiTrainingRecipe(TrainingRecipe):
    """How a phi is trained.

    Attributes:
        network: phi itself.
        sums: weight of the errors of sums over squares and over the whole tile beside those of
            pixels (`sureloc.diffusion.objectives.Sums`).
    """

    kind: Literal["phi"]
    network: PhiNetworkRecipe = FastPhiRecipe(kind="fast")
    sums: Annotated[float, Field(ge=0)] = 0.0


class MixtureTrainingRecipe(TrainingRecipe):
    """How a network that describes emitters is trained (`sureloc.networks.mixture`)."""

    kind: Literal["mixture"] = "mixture"
    network: FastPhiRecipe = FastPhiRecipe(kind="fast")


class PsiNetworkRecipe(_Strict):
    """The default Psi; see `sureloc.networks.psi.Psi`."""

    kind: Literal["residual"] = "residual"
    conditioning: Literal["yhat", "x", "both"] = "both"
    condition_width: Size = 64
    condition_blocks: Blocks = 3
    width: Size = 64
    dilations: Dilations = (1, 2)
    embedding: Size = 64
    overview: Overview = 0
    windows: Windows = ()

    def card(self) -> PsiCard:
        """Give what a weights file says of the network."""
        return PsiCard(**self.model_dump())


class SplitRecipe(_Strict):
    """Two networks, one for strong and one for weak noise; see `sureloc.networks.psi.SplitPsi`.

    Attributes:
        sigma: noise from which on `noisier` is trained and runs, and below which `quieter`.
        noisier, quieter: networks, each with the keys of `residual`.
    """

    kind: Literal["split"]
    sigma: Sigma = 2.0
    noisier: PsiNetworkRecipe = PsiNetworkRecipe()
    quieter: PsiNetworkRecipe = PsiNetworkRecipe()

    def card(self) -> SplitCard:
        """Give what a weights file says of the networks."""
        return SplitCard(
            kind=self.kind,
            sigma=self.sigma,
            noisier=self.noisier.card(),
            quieter=self.quieter.card(),
        )


class UNetRecipe(UNetCard):
    """The paper's Psi; see `sureloc.networks.unet.UNetPsi`."""

    def card(self) -> UNetCard:
        """Give what a weights file says of the network."""
        return UNetCard(**self.model_dump())


class NoiseRecipe(_Strict):
    """Noise levels in units of the residual's root mean square.

    Attributes:
        log_mean, log_sd: training draws ln sigma from this normal distribution.
        sigma_min, sigma_max: ends of the levels that sampling runs through.
        rho: spacing of those levels (Karras 2022, eq. 5).
        sigmas: those levels themselves, the noisiest first, instead of ends and spacing.
        levels_per_tile: noise levels that each simulated tile is used with in a step.
    """

    kind: Literal["log_normal"] = "log_normal"
    log_mean: float = 0.3
    log_sd: PositiveFloat = 1.8
    sigma_min: Sigma = 0.03
    sigma_max: Sigma = 60.0
    rho: Rho = 7.0
    sigmas: Sigmas | None = None
    levels_per_tile: PositiveInt = 4

    @model_validator(mode="after")
    def _ends_are_in_order(self) -> Self:
        check_ends(self.sigma_min, self.sigma_max)
        return self

    @model_validator(mode="after")
    def _levels_are_told_once(self) -> Self:
        if self.sigmas is None:
            return self
        for name in ("sigma_min", "sigma_max", "rho"):
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} is {value:g} beside a list of sigmas, which replaces it; give one or "
                    "the other"
                )
        self.card()  # the list falls
        return self

    def gammas(self, count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
        """Draw training levels."""
        return log_normal_gamma(self.log_mean, self.log_sd, count, generator)

    def card(self) -> LevelsCard:
        """Give the levels that sampling runs through."""
        if self.sigmas is not None:
            return ListLevels(kind="list", sigmas=self.sigmas)
        return KarrasLevels(
            kind="karras", sigma_min=self.sigma_min, sigma_max=self.sigma_max, rho=self.rho
        )


class LinearBetaNoiseRecipe(LinearBetaLevels):
    """Levels uniform inside a random step of a linear schedule (seed 3.3 and 4.2).

    Attributes:
        steps: of the schedule (`sureloc.diffusion.schedules.linear_beta`).
        first, last: beta of its ends.
        levels_per_tile: noise levels that each simulated tile is used with in a step.
    """

    levels_per_tile: PositiveInt = 4

    def gammas(self, count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
        """Draw training levels."""
        return piecewise_uniform_gamma(self.levels(self.steps), count, generator)

    def card(self) -> LevelsCard:
        """Give the levels that sampling runs through."""
        return LinearBetaLevels(**self.model_dump(exclude={"levels_per_tile"}))


class CosineNoiseRecipe(CosineLevels):
    """Levels uniform inside a random step of the cosine schedule.

    Attributes:
        steps: of the schedule (`sureloc.diffusion.schedules.cosine`).
        levels_per_tile: noise levels that each simulated tile is used with in a step.
    """

    levels_per_tile: PositiveInt = 4

    def gammas(self, count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
        """Draw training levels."""
        return piecewise_uniform_gamma(self.levels(self.steps), count, generator)

    def card(self) -> LevelsCard:
        """Give the levels that sampling runs through."""
        return CosineLevels(**self.model_dump(exclude={"levels_per_tile"}))


class DenoisingRecipe(_Strict):
    """Learn to denoise; see `sureloc.diffusion.objectives.denoising_loss`.

    Attributes:
        target: what the network's output means (`sureloc.diffusion.denoisers`).
        norm: of its errors; L2 learns means, L1 medians.
        sums: weight of the errors of sums over squares and over the whole tile; with L2 only.
        sums_above: noise above which they count.
        sampler: function of `sureloc.diffusion.samplers` by which validation and the weights draw.
        evaluations: of Psi for one draw, at one noise level each.
    """

    kind: Literal["denoising"] = "denoising"
    target: Literal["epsilon", "clean", "preconditioned"] = "preconditioned"
    norm: Literal["L1", "L2"] = "L2"
    sums: Annotated[float, Field(ge=0)] = 0.0
    sums_above: Annotated[float, Field(ge=0)] = 0.0
    sampler: SamplerName = "dpm_solver_2m"
    evaluations: Evaluations = 8

    @model_validator(mode="after")
    def _sums_have_means(self) -> Self:
        if self.sums > 0 and self.norm == "L1":
            raise ValueError(
                f"objective.sums is {self.sums:g} with norm L1; the sum of medians is not the "
                "median of the sum, so give norm L2, or sums 0"
            )
        return self

    def card(self, data: Data) -> DrawsCard:
        """Give how draws are made."""
        return DrawsCard(
            target=self.target, data=data, sampler=self.sampler, evaluations=self.evaluations
        )


class EnergyRecipe(_Strict):
    """Learn to draw in one evaluation; see `sureloc.diffusion.objectives.energy_loss`.

    Attributes:
        draws: draws of each tile in a step.
        patch_fine_px: side of the patches.
    """

    kind: Literal["energy"]
    draws: Annotated[int, Field(ge=2)] = 4
    patch_fine_px: PositiveInt = 8

    def card(self, data: Data) -> DrawsCard:
        """Give how draws are made: what leaves the network is the image."""
        return DrawsCard(target="clean", data=data, evaluations=1)


class PsiTrainingRecipe(TrainingRecipe):
    """How a Psi is trained beside a frozen phi.

    Attributes:
        data: what is drawn: what phi leaves, the image itself, or the image in the [-1, 1] of the
            paper.
        network: Psi itself.
        noise: levels that training draws, and those that sampling runs through.
        objective: what is learnt.
    """

    kind: Literal["psi"]
    data: Data = "residual"
    network: Annotated[PsiNetworkRecipe | SplitRecipe | UNetRecipe, Field(discriminator="kind")] = (
        PsiNetworkRecipe()
    )
    noise: Annotated[
        NoiseRecipe | LinearBetaNoiseRecipe | CosineNoiseRecipe, Field(discriminator="kind")
    ] = NoiseRecipe()
    objective: Annotated[DenoisingRecipe | EnergyRecipe, Field(discriminator="kind")] = (
        DenoisingRecipe()
    )

    @model_validator(mode="before")
    @classmethod
    def _kinds_have_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        kinds = {"network": "residual", "noise": "log_normal", "objective": "denoising"}
        sections = {
            name: {"kind": kind} | values[name]
            for name, kind in kinds.items()
            if isinstance(values.get(name), dict)
        }
        return values | sections

    @model_validator(mode="after")
    def _draws_have_levels(self) -> Self:
        objective, kind = self.objective, self.noise.kind
        least = self.noise.card().least_evaluations
        if objective.kind == "energy":
            if least > 1:
                raise ValueError(
                    f"noise.kind is {kind!r} with the objective energy, which draws at one noise "
                    f"level, where {kind} needs {least} or more; give noise.kind log_normal"
                )
            return self
        for key, value in (
            ("objective.evaluations", objective.evaluations),
            ("validation.evaluations", self.validation.evaluations),
        ):
            if value < least:
                raise ValueError(
                    f"{key} is {value} with noise.kind {kind!r}; it must be {least} or larger, as "
                    "draws run through both ends of its levels"
                )
        return self

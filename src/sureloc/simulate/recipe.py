"""What a simulated movie is made of, as a user writes it in a YAML recipe.

Every model refuses unknown keys, NaN and infinity. Lengths are in nm or px as the key says, photons
are detected photons (photo-electrons / quantum efficiency), times are in frames.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FrameRecipe(_Strict):
    """Size of a frame.

    Attributes:
        height, width: rows and columns.
        pixel_nm: side of a pixel in the sample, nm.
        margin_px: molecules also live in a margin this wide around the frame; those outside shine
            into it and stand in the truth table.
    """

    height: Annotated[int, Field(ge=8, le=16384)] = 64
    width: Annotated[int, Field(ge=8, le=16384)] = 64
    pixel_nm: PositiveFloat = 100.0
    margin_px: NonNegativeFloat = 0.0


class PsfRecipe(_Strict):
    """Gaussian point-spread function; sigma_y_px defaults to sigma_px."""

    sigma_px: Annotated[float, Field(gt=0, le=20)] = 1.0
    sigma_y_px: Annotated[float, Field(gt=0, le=20)] | None = None


# --- Scenes -------------------------------------------------------------------------------------


class DiscScene(_Strict):
    """Emitters uniform in a disc at the centre of the frame (seed 4: 10 in a radius of 7 px)."""

    kind: Literal["disc"]
    emitters: PositiveInt = 10
    radius_px: PositiveFloat = 7.0


class UniformScene(_Strict):
    """Molecules uniform over the frame, a Poisson number of the given mean density."""

    kind: Literal["uniform"]
    density_per_um2: Annotated[float, Field(ge=0, le=10_000)]


class FilamentScene(_Strict):
    """Worm-like curves with labels along them.

    Attributes:
        filaments: number of curves; each passes through a random point of the frame.
        length_um: contour length of each.
        persistence_um: persistence length; larger is straighter.
        labels_per_um: mean number of molecules per micrometre of curve.
        linker_nm: standard deviation, per axis, of a label about its curve.
    """

    kind: Literal["filaments"]
    filaments: PositiveInt = 8
    length_um: PositiveFloat = 12.0
    persistence_um: PositiveFloat = 10.0
    labels_per_um: NonNegativeFloat = 100.0
    linker_nm: NonNegativeFloat = 5.0


class RingScene(_Strict):
    """Rings of equally spaced sites, such as nuclear pores (8 sites, radius about 53 nm).

    Attributes:
        rings: number of rings, placed uniformly and turned at random.
        sites: sites of each ring.
        radius_nm: distance of the sites from the centre.
        labelling: probability that a site carries a molecule.
        linker_nm: standard deviation, per axis, of a label about its site.
    """

    kind: Literal["rings"]
    rings: PositiveInt = 20
    sites: Annotated[int, Field(ge=1, le=1000)] = 8
    radius_nm: PositiveFloat = 53.0
    labelling: Probability = 1.0
    linker_nm: NonNegativeFloat = 0.0


class NanorulerScene(_Strict):
    """Short rows of equally spaced spots, such as DNA-origami rulers.

    Attributes:
        rulers: number of rulers, placed uniformly and turned at random.
        spots: spots of each ruler.
        spacing_nm: distance between neighbouring spots.
        labelling: probability that a spot carries a molecule.
        linker_nm: standard deviation, per axis, of a label about its spot.
    """

    kind: Literal["nanorulers"]
    rulers: PositiveInt = 20
    spots: Annotated[int, Field(ge=1, le=1000)] = 3
    spacing_nm: PositiveFloat = 80.0
    labelling: Probability = 1.0
    linker_nm: NonNegativeFloat = 0.0


class LatticeScene(_Strict):
    """A square lattice of molecules over the frame.

    Attributes:
        spacing_nm: lattice constant.
        offset_nm: x and y of the lattice point nearest to pixel (0, 0)'s centre.
        angle_deg: rotation from the columns' axis towards the rows' axis.
    """

    kind: Literal["lattice"]
    spacing_nm: PositiveFloat = 500.0
    offset_nm: tuple[float, float] = (0.0, 0.0)
    angle_deg: float = 0.0


SceneRecipe = Annotated[
    DiscScene | UniformScene | FilamentScene | RingScene | NanorulerScene | LatticeScene,
    Field(discriminator="kind"),
]


# --- Photons and kinetics -----------------------------------------------------------------------


class FixedPhotons(_Strict):
    """Every molecule sends the same expected number of photons in a frame that it is on."""

    kind: Literal["fixed"]
    photons: PositiveFloat


class UniformPhotons(_Strict):
    """Photons a frame uniform between low and high."""

    kind: Literal["uniform"]
    low: NonNegativeFloat
    high: PositiveFloat

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g}, above high = {self.high:g}; swap them")
        return self


class LognormalPhotons(_Strict):
    """Photons a frame log-normal with the given mean and standard deviation (of the photons)."""

    kind: Literal["lognormal"]
    mean: PositiveFloat
    sd: PositiveFloat


class ExponentialPhotons(_Strict):
    """Photons a frame exponential with the given mean."""

    kind: Literal["exponential"]
    mean: PositiveFloat


PhotonsRecipe = Annotated[
    FixedPhotons | UniformPhotons | LognormalPhotons | ExponentialPhotons,
    Field(discriminator="kind"),
]


class FreshKinetics(_Strict):
    """New molecules are drawn from the scene in every frame, each on for exactly that frame."""

    kind: Literal["fresh"]


class AlwaysKinetics(_Strict):
    """The scene's molecules are drawn once and are on in every frame, brightness constant."""

    kind: Literal["always"]


class BlinkingKinetics(_Strict):
    """Molecules drawn once that switch on, off and bleach as a continuous-time Markov chain.

    Attributes:
        on_frames: mean duration of an on-state, frames.
        off_frames: mean duration of an off-state, frames.
        bleach_probability: probability that an on-state ends for ever.
        start: state of the molecules when the movie starts; `stationary` is on with probability
            on_frames / (on_frames + off_frames).
    """

    kind: Literal["blinking"]
    on_frames: PositiveFloat
    off_frames: PositiveFloat
    bleach_probability: Probability = 0.0
    start: Literal["stationary", "on", "off"] = "stationary"


KineticsRecipe = Annotated[
    FreshKinetics | AlwaysKinetics | BlinkingKinetics, Field(discriminator="kind")
]


# --- Background, drift, camera ------------------------------------------------------------------


class ConstantBackground(_Strict):
    """The same expected background photons in every pixel and frame."""

    kind: Literal["constant"]
    photons_per_px: NonNegativeFloat = 0.0


class SmoothBackground(_Strict):
    """A smooth random background, log-normal and constant in time.

    Attributes:
        photons_per_px: mean over the frame.
        relative_sd: standard deviation over mean.
        length_px: correlation length (sd of the Gaussian that smooths the noise).
    """

    kind: Literal["smooth"]
    photons_per_px: NonNegativeFloat
    relative_sd: NonNegativeFloat = 0.3
    length_px: PositiveFloat = 15.0


class StructuredBackground(_Strict):
    """Out-of-focus filaments, constant in time.

    Attributes:
        photons_per_px: mean over the frame.
        structured_share: share of it that comes from the filaments, the rest is even.
        filaments: number of curves.
        persistence_um: their persistence length.
        defocus_px: sd of the Gaussian that blurs them.
    """

    kind: Literal["structured"]
    photons_per_px: NonNegativeFloat
    structured_share: Probability = 0.7
    filaments: PositiveInt = 6
    persistence_um: PositiveFloat = 10.0
    defocus_px: PositiveFloat = 4.0


BackgroundRecipe = Annotated[
    ConstantBackground | SmoothBackground | StructuredBackground, Field(discriminator="kind")
]


class DriftRecipe(_Strict):
    """Drift of the sample: steady, plus a random walk; 0 in the first frame.

    Attributes:
        velocity_nm_per_frame: along x (columns) and y (rows).
        walk_nm: standard deviation, per axis, of the random step from frame to frame.
    """

    velocity_nm_per_frame: tuple[float, float] = (0.0, 0.0)
    walk_nm: NonNegativeFloat = 0.0


class ScalarCamera(_Strict):
    """A camera whose pixels are all alike; em_gain above 1 makes it an EMCCD."""

    kind: Literal["scalar"]
    offset_adu: NonNegativeFloat = 100.0
    gain_adu_per_e: PositiveFloat = 1.0
    variance_adu2: NonNegativeFloat = 0.0
    quantum_efficiency: Annotated[float, Field(gt=0, le=1)] = 1.0
    em_gain: Annotated[float, Field(ge=1)] = 1.0
    saturation_adu: Annotated[int, Field(ge=1, le=65535)] = 65535


class ScmosCamera(_Strict):
    """A synthetic sCMOS camera with a map of offset, gain and read variance (Huang et al. 2013).

    Attributes:
        seed: which camera of this kind; it does not depend on the movie's seed.
        offset_adu, offset_sd_adu: normal distribution of the pixels' offsets.
        gain_adu_per_e, gain_relative_sd: normal distribution of the gains, cut at 10 % of the mean.
        variance_adu2: median of the read variance.
        variance_log_sd: sd of the natural logarithm of the read variance.
        hot_share: share of hot pixels.
        hot_factor: median of the factor by which a hot pixel's variance is larger.
        quantum_efficiency: photo-electrons per photon.
        saturation_adu: largest value.
    """

    kind: Literal["scmos"]
    seed: Annotated[int, Field(ge=0)] = 0
    offset_adu: NonNegativeFloat = 100.0
    offset_sd_adu: NonNegativeFloat = 2.0
    gain_adu_per_e: PositiveFloat = 2.2
    gain_relative_sd: Annotated[float, Field(ge=0, le=0.3)] = 0.03
    variance_adu2: NonNegativeFloat = 6.0
    variance_log_sd: Annotated[float, Field(ge=0, le=3)] = 0.4
    hot_share: Probability = 0.003
    hot_factor: Annotated[float, Field(ge=1)] = 50.0
    quantum_efficiency: Annotated[float, Field(gt=0, le=1)] = 1.0
    saturation_adu: Annotated[int, Field(ge=1, le=65535)] = 65535


CameraRecipe = Annotated[ScalarCamera | ScmosCamera, Field(discriminator="kind")]


class Recipe(_Strict):
    """A whole simulated movie, except for its seed and length.

    Attributes:
        description: one sentence for people.
        frame: size of a frame.
        psf: point-spread function.
        scene: where molecules are.
        kinetics: when they are on.
        photons: how many photons a molecule sends in a frame that it is on throughout; drawn anew
            whenever a molecule switches on.
        background: expected background.
        drift: motion of the sample.
        camera: what the camera does to photons.
    """

    description: str = ""
    frame: FrameRecipe = FrameRecipe()
    psf: PsfRecipe = PsfRecipe()
    scene: SceneRecipe
    kinetics: KineticsRecipe = FreshKinetics(kind="fresh")
    photons: PhotonsRecipe
    background: BackgroundRecipe = ConstantBackground(kind="constant")
    drift: DriftRecipe = DriftRecipe()
    camera: CameraRecipe

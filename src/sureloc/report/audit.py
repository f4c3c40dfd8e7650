"""The audit of a run: its questions asked, and one page with the answers.

The page is one HTML file that needs nothing else; text from users and files is escaped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sureloc.analysis.audit import (
    CONFIDENCE,
    LEAST_PAIRS,
    Item,
    Outcome,
    bright_and_alone,
    chi2_item,
    clear_rows,
    following_pairs,
    ratio_item,
    split_light,
    split_pairs,
)
from sureloc.camera import BY_TYPE, Camera, rounding_of
from sureloc.errors import InputError, WeightsError
from sureloc.io.cameras import read_camera
from sureloc.io.found import Found, movie_shape, read_found
from sureloc.io.movies import Movie, open_movie
from sureloc.io.output import check_new_folder, new_folder
from sureloc.io.run_folder import CAMERA_FILE
from sureloc.localize.frames import Effort
from sureloc.localize.movie import Options, localize, prepare, spread_frames
from sureloc.localize.saturation import saturated
from sureloc.networks.weights import Networks, load_weights
from sureloc.report.records import plain
from sureloc.seeds import numpy_generator

SPLIT_FRAMES = 60
SPARE_WEIGHTS = "fast"  # where those of the run cannot be had
APART_SIGMAS = 5.0  # images further apart than this many PSF widths do not overlap
USUAL_PSF_NM = 130.0
_CLASS_OF = {Outcome.PASS: "trust", Outcome.OPEN: "care", Outcome.FAIL: "refuse"}
_CLASS_OF[Outcome.UNASKED] = "unasked"


@dataclass(frozen=True)
class Audit:
    """All answers about one run.

    Attributes:
        name: of the run or table.
        items: the answers.
        record: what it was made from.
    """

    name: str
    items: tuple[Item, ...]
    record: Mapping[str, str]

    @property
    def outcome(self) -> Outcome:
        """Fail where one item fails, pass where one passes and none fails, else cannot tell."""
        outcomes = {item.outcome for item in self.items}
        if Outcome.FAIL in outcomes:
            return Outcome.FAIL
        return Outcome.PASS if Outcome.PASS in outcomes else Outcome.OPEN

    @property
    def sentence(self) -> str:
        """The whole audit in one sentence."""
        number = {one: sum(item.outcome is one for item in self.items) for one in Outcome}
        failed = ", ".join(item.name for item in self.items if item.outcome is Outcome.FAIL)
        if failed:
            return f"Fail: {failed}."
        unasked, asked = number[Outcome.UNASKED], len(self.items) - number[Outcome.UNASKED]
        left = f"; {unasked} {'was' if unasked == 1 else 'were'} not asked" if unasked else ""
        if number[Outcome.OPEN]:
            return (
                f"{number[Outcome.PASS]} of {asked} items pass, none fails; "
                f"{number[Outcome.OPEN]} cannot tell{left}."
            )
        return f"Pass: all {asked} items{left}."


def audit_run(
    source: str | Path,
    *,
    movie: str | Path | None = None,
    camera: str | Path | None = None,
    camera_pixel_nm: float | None = None,
    frames: int = SPLIT_FRAMES,
    workers: int = 1,
    seed: int = 0,
    say: Callable[[str], None] = lambda _text: None,
) -> Audit:
    """Ask a run, or a table alone, whether its uncertainties are those of its movie.

    Args:
        source: folder of a run, or table of any format.
        movie: the movie that was localized, to split its light; without it, that is left out.
        camera: its camera file; without it the one that the run used, or the numbers that it
            recorded, where these are all of that camera.
        camera_pixel_nm: camera pixel size, nm, where the source does not say it.
        frames: how many frames are split and localized twice.
        workers: threads; results do not depend on them.
        seed: the same seed gives the same answers.
        say: tells people what was not read.

    Raises:
        InputError: the source, movie or camera cannot be used.
    """
    found = read_found(source, camera_pixel_nm, say)
    sure = clear_rows(found.table)
    apart_nm = APART_SIGMAS * _psf_nm(found)
    alone = clear_rows(bright_and_alone(found.table, apart_nm))
    networks, used = _weights(found) if movie is not None else (None, "none")
    split, camera_used = _split_item(found, movie, camera, networks, frames, workers, seed)
    items = [
        ratio_item(
            "bright molecules in frames that follow each other",
            "Molecules that shine on: do two frames place them as near to each other as stated?",
            following_pairs(alone),
            numpy_generator(seed, "audit", "bright"),
        ),
        ratio_item(
            "all trusted molecules in frames that follow each other",
            "The same, faint and crowded ones included.",
            following_pairs(sure),
            numpy_generator(seed, "audit", "all"),
        ),
        split,
        chi2_item(found.table, numpy_generator(seed, "audit", "chi2")),
    ]
    record = {
        "source": found.name,
        "rows": f"{len(found.table):,}, of which {len(sure):,} are trusted and likely",
        "movie": "not given" if movie is None else str(movie),
        "camera": camera_used,
        "weights of both halves": used,
        "seed": str(seed),
        "version of sureloc": metadata.version("sureloc"),
    }
    return Audit(found.name, tuple(items), record)


def _psf_nm(found: Found) -> float:
    """Give the PSF width, which tables of later steps know, beside which no record does."""
    if found.psf_sigma_nm:
        return found.psf_sigma_nm
    widths = found.record.get("assumed", {}).get("sigma_px")
    if widths and found.pixel_nm:
        return float(np.mean(widths)) * found.pixel_nm
    return USUAL_PSF_NM


# --- Two halves of the light --------------------------------------------------------------------


class _Frames:
    """Chosen frames in memory, as `sureloc.localize.movie.Frames` wants them."""

    def __init__(self, adu: npt.NDArray[Any]) -> None:
        self._adu = adu

    @property
    def shape(self) -> tuple[int, int, int]:
        frames, rows, columns = self._adu.shape
        return frames, rows, columns

    def read(self, first: int, last: int) -> npt.NDArray[Any]:
        return self._adu[first:last]


def _split_item(
    found: Found,
    movie: str | Path | None,
    camera: str | Path | None,
    networks: Networks | None,
    frames: int,
    workers: int,
    seed: int,
) -> tuple[Item, str]:
    """Give the answer, and which camera it was found with."""
    name = "two halves of the light"
    question = (
        "Every photo-electron of a frame goes to one of two halves: do both halves place the "
        "molecules as near to each other as they state?"
    )
    if movie is None or networks is None:
        sentence = "The movie was not given (--movie)."
        return Item(name, question, Outcome.UNASKED, sentence), "none"
    with open_movie(Path(movie)) as whole:
        part = _part(whole, found)
        used, told = _camera(found, camera, part, whole.full_shape)
        if used.em_gain > 1:
            sentence = "After electron multiplication, electrons cannot be told one by one."
            return Item(name, question, Outcome.UNASKED, sentence), told
        numbers = spread_frames(part.frames, frames)
        if len(numbers) < LEAST_PAIRS:
            return Item(name, question, Outcome.UNASKED, _too_short(part.frames, frames)), told
        adu = np.concatenate([part.read(k, k + 1) for k in numbers])
    used = replace(
        used, saturation_adu=used.saturation_in(adu.dtype), rounding_adu2=rounding_of(adu)
    )
    halves = split_movie(adu, used, numpy_generator(seed, "audit", "coins"))
    half_camera = camera_of_half(used)
    first, second = (
        clear_rows(_localized(half, half_camera, found, networks, workers, seed + k))
        for k, half in enumerate(halves)
    )
    pairs = split_pairs(first, second)
    return ratio_item(name, question, pairs, numpy_generator(seed, "audit", "split")), told


def _too_short(movie_frames: int, frames: int) -> str:
    if movie_frames < LEAST_PAIRS:
        return (
            f"The movie has {movie_frames} frames, at least {LEAST_PAIRS} are needed, "
            "since pairs of one frame count as one. Nothing was halved."
        )
    return (
        f"{frames} frames were to be halved, at least {LEAST_PAIRS} are needed; ask for "
        "more (--frames)."
    )


def split_movie(
    adu: npt.NDArray[Any], camera: Camera, rng: np.random.Generator
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Split frames in ADU into halves of the light; saturated pixels stay so in both.

    Halves of a camera that rounds are whole ADU too.

    Args:
        adu: frames, (frames, rows, columns).
        camera: what took them; `camera_of_half` is the one of the halves.
        rng: source of the coins.
    """
    variance = camera.read_variance_e2((adu.shape[1], adu.shape[2]))
    lost = saturated(adu, camera)
    one, two = (
        np.rint(camera.adu(half)).astype(np.int64) if camera.rounding_adu2 else camera.adu(half)
        for half in split_light(camera.electrons(adu), variance, rng)
    )
    top = camera.saturation_in(adu.dtype)
    if top is not None:
        for half in (one, two):
            half[lost] = top
    return one, two


def camera_of_half(camera: Camera) -> Camera:
    """Give the camera that would have taken one half: half of the read variance.

    The whole's rounding is part of what is halved; the half's own comes on top by itself.
    """
    variance = (np.asarray(camera.variance_adu2) + camera.rounding_adu2) / 2
    return replace(camera, variance_adu2=variance if variance.ndim else float(variance))


def _part(whole: Movie, found: Found) -> Movie:
    """Select what the run had localized."""
    roi, frames = found.record.get("roi"), found.record.get("frames")
    part = whole.cut(*(str(text) if text else None for text in (roi, frames)))
    stated = movie_shape(found.record)
    if stated is not None and part.shape != stated:
        raise InputError(
            f"The movie has {part.frames} frames of {part.height} x {part.width} px, but the run "
            f"{found.name} localized {stated[0]} of {stated[1]} x {stated[2]} px; give the movie "
            "that it was made from."
        )
    return part


def _camera(
    found: Found, camera: str | Path | None, part: Movie, full: tuple[int, int]
) -> tuple[Camera, str]:
    """Give the camera and say which it is: the file named, that of the run, or its numbers.

    Raises:
        InputError: the camera of the run cannot be had any more, or nothing says which it was.
    """
    of_run = _fingerprint(found)
    if camera is not None:
        used = _camera_of_part(Path(camera), part, full)
        other = of_run is not None and used.fingerprint(part.dtype) != of_run
        return used, f"{camera}, as given" + (", not the one that the run used" if other else "")
    assumed = found.record.get("assumed", {})
    named = found.record.get("camera")
    recorded = "median_gain_adu_per_e" in assumed
    if _is_unsaid(found) or (named is None and not recorded):
        raise InputError(
            f"Nothing says which camera took the movie of {found.name}; give its file with "
            "--camera."
        )
    if named is None and of_run is None:
        return _recorded(assumed), f"estimated from the movie by the run, {_numbers(assumed)}"
    # Records of older runs hold the path as it was typed.
    file = found.record.get(CAMERA_FILE) or (None if named in (None, "given") else named)
    trouble = "its file is not known"
    if file is not None:
        trouble = f"its file {file} is not there any more"
        if Path(str(file)).exists():
            used = _camera_of_part(Path(str(file)), part, full)
            if of_run in (None, used.fingerprint(part.dtype)):
                return used, f"{file}, as the run"
            trouble = f"its file {file} holds another camera by now"
    if recorded and assumed.get("camera_has_maps") is False:
        return _recorded(assumed), f"as the run recorded it, {_numbers(assumed)}; {trouble}"
    raise InputError(
        f"The camera that took the movie of {found.name} cannot be had: {trouble}, and the run's "
        "record does not hold its maps. Give the file with --camera."
    )


def _fingerprint(found: Found) -> str | None:
    """Give the fingerprint of the camera that the run was given, None without one."""
    identity = found.record.get("identity")
    stated = identity.get("camera") if isinstance(identity, Mapping) else None
    return None if stated is None else str(stated)


def _is_unsaid(found: Found) -> bool:
    """Tell whether a record leaves open if a camera was given."""
    return "camera" not in found.record and "identity" not in found.record


def _camera_of_part(path: Path, part: Movie, full: tuple[int, int]) -> Camera:
    """Read a camera's file, maps cut to the part of the movie if they are those of all of it."""
    return read_camera(path).of_part(part.shape[1:], full, part.rows, part.columns)


def _recorded(assumed: Mapping[str, Any]) -> Camera:
    """Give a camera without maps as a run recorded it; older records state fewer numbers."""
    return Camera(
        float(assumed["median_offset_adu"]),
        float(assumed["median_gain_adu_per_e"]),
        float(assumed["median_variance_adu2"]),
        float(assumed.get("quantum_efficiency", 1.0)),
        float(assumed.get("em_gain", 1.0)),
        assumed.get("saturation_adu", BY_TYPE),
    )


def _numbers(assumed: Mapping[str, Any]) -> str:
    gain, offset = (assumed[f"median_{name}"] for name in ("gain_adu_per_e", "offset_adu"))
    return f"gain {float(gain):.3g} ADU per electron, offset {float(offset):.4g} ADU"


def _weights(found: Found) -> tuple[Networks, str]:
    """Give the weights of the run, or `SPARE_WEIGHTS` where they cannot be had, and say which."""
    stated = found.record.get("weights")
    name = stated.get("name") if isinstance(stated, Mapping) else stated
    spare = f"{SPARE_WEIGHTS}, not those of the run"
    if not name:
        return load_weights(SPARE_WEIGHTS), f"{spare}: its record does not name them"
    place = str(found.record.get("weights_from", name))
    try:
        networks = load_weights(place)
    except WeightsError as error:
        return load_weights(SPARE_WEIGHTS), f"{spare}, which were {name}: {error}"
    card = networks.card.model_dump(mode="json")
    same = card == stated if isinstance(stated, Mapping) else card["name"] == name
    if not same:
        other = f"{spare}, which were {name}: {place} holds others by now"
        return load_weights(SPARE_WEIGHTS), other
    return networks, f"{name}, as the run"


def _localized(
    adu: npt.NDArray[Any],
    camera: Camera,
    found: Found,
    networks: Networks,
    workers: int,
    seed: int,
) -> pd.DataFrame:
    widths = found.record.get("assumed", {}).get("sigma_px")
    options = Options(
        pixel_nm=found.pixel_nm or 100.0,
        sigma_px=float(np.mean(widths)) if widths else None,
        draws=2,
        seed=seed,
        workers=workers,
        trust_camera=bool(found.record.get("trust_camera", False)),
        effort=Effort(rounds=int(found.record.get("rounds", Effort.rounds))),
    )
    movie = _Frames(adu)
    assumptions = prepare(movie, camera, options, networks)
    tables = [rows.table for rows in localize(movie, assumptions, options, networks)]
    return pd.concat(tables, ignore_index=True)


# --- The page -----------------------------------------------------------------------------------


def write_audit(audit: Audit, out: Path) -> None:
    """Write a new folder with audit.html and audit.json.

    Raises:
        InputError: the folder cannot be used.
        OutputError: a file cannot be written; nothing is left.
    """
    check_new_folder(out)
    with new_folder(out) as folder:
        text = json.dumps(as_record(audit), indent=2, ensure_ascii=False, allow_nan=False)
        (folder / "audit.json").write_text(text + "\n", encoding="utf-8")
        (folder / "audit.html").write_text(page_of(audit), encoding="utf-8")


def as_record(audit: Audit) -> dict[str, Any]:
    """Give an audit as JSON knows it; None for numbers that there are not."""
    return {
        "name": audit.name,
        "outcome": audit.outcome.value,
        "sentence": audit.sentence,
        "false_alarms_per_item": round(1 - CONFIDENCE, 10),
        "items": [plain(asdict(item)) for item in audit.items],
        "record": dict(audit.record),
    }


def page_of(audit: Audit) -> str:
    """Give the audit as one HTML page."""
    page = resources.files("sureloc.report")
    return Template((page / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"{audit.name}: audit by sureloc"),
        style=(page / "page.css").read_text(encoding="utf-8"),
        script="",
        body="\n".join(_sections(audit)),
    )


def _sections(audit: Audit) -> Sequence[str]:
    items = [
        f'<section class="verdict {_CLASS_OF[item.outcome]}">'
        f"<strong>{escape(item.outcome.value.capitalize())}: {escape(item.name)}</strong>"
        f"<p>{escape(item.question)}</p>{_scale(item)}<p>{escape(item.sentence)}</p></section>"
        for item in audit.items
    ]
    rows = "".join(
        f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>"
        for key, value in audit.record.items()
    )
    return [
        f"<h1>Audit of {escape(audit.name)}</h1>",
        f'<section class="verdict {_CLASS_OF[audit.outcome]}">'
        f"<strong>{escape(audit.sentence)}</strong></section>",
        *items,
        "<section><h2>How to read this</h2><p>No truth is needed: the run is asked whether it "
        "agrees with itself as well as it states. The dot is what was measured, the line where it "
        f"is with {100 * CONFIDENCE:.0f} % confidence to each side, the green band what is "
        f"allowed. An item fails only where the whole line lies outside: on a run whose numbers "
        f"are right, that happens in at most {100 * (1 - CONFIDENCE):.0f} of 100 audits an item. "
        "It passes only where it would have noticed errors 1.3 times as large as stated.</p><p>A "
        "pass says that positions repeat within their stated error. It does not see what is the "
        "same in every frame: an offset of all positions, two molecules always taken for one, or "
        "molecules that were missed.</p></section>",
        f"<section><h2>How it came about</h2><table>{rows}</table></section>",
    ]


def _scale(item: Item) -> str:
    """Draw an item's number on a scale from 0.5 to 2; nothing where it has none."""
    if not math.isfinite(item.value):
        return ""
    width, height, left = 560.0, 54.0, 10.0

    def place(value: float) -> float:
        share = math.log(min(max(value, 0.5), 2.0) / 0.5) / math.log(4.0)
        return left + share * (width - 2 * left)

    low, high = (place(v) for v in item.allowed)
    ticks = "".join(
        f'<line x1="{place(t):.1f}" x2="{place(t):.1f}" y1="32" y2="37" stroke="#5f6368"/>'
        f'<text x="{place(t):.1f}" y="50" font-size="12" text-anchor="middle" fill="#5f6368">'
        f"{t:g}</text>"
        for t in (0.5, 0.7, 1.0, 1.3, 2.0)
    )
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        f'style="max-width: 100%" aria-label="{item.value:.2f}, allowed '
        f'{item.allowed[0]:g} to {item.allowed[1]:g}">'
        f'<rect x="{low:.1f}" y="6" width="{high - low:.1f}" height="26" fill="#bfe0cb"/>'
        f'<line x1="{left:g}" x2="{width - left:g}" y1="32" y2="32" stroke="#5f6368"/>{ticks}'
        f'<line x1="{place(1.0):.1f}" x2="{place(1.0):.1f}" y1="6" y2="32" stroke="#2e7d4f"/>'
        f'<line x1="{place(item.low):.1f}" x2="{place(item.high):.1f}" y1="19" y2="19" '
        'stroke="#202124" stroke-width="2.5"/>'
        f'<circle cx="{place(item.value):.1f}" cy="19" r="5" fill="#202124"/></svg>'
    )

"""One run of the main job, from a movie to a folder of results, broken off or not.

What a run learns of its movie, and every unit of its work, is kept in `OUT.partial` as soon as it
is there; the results are then made of that, and appear whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sureloc.camera import Camera, same_pixel_nm
from sureloc.errors import InputError
from sureloc.evaluate.compare import Comparison, compare
from sureloc.io.assumptions import read_assumptions
from sureloc.io.cameras import read_camera
from sureloc.io.exchange.localizations import Geometry
from sureloc.io.movies import Movie, open_movie
from sureloc.io.pixel_size import ASSUMED, PIXEL_SIZE_FROM
from sureloc.io.results import Place, TablesWriter, versions, write_run
from sureloc.io.run_folder import CAMERA_FILE, LOCALIZATIONS, REPORT, RUN, check_place
from sureloc.io.tables import read_table
from sureloc.localize.doubles import Doubles
from sureloc.localize.faintness import Faint
from sureloc.localize.frames import Effort, go_on
from sureloc.localize.images import ImageSums
from sureloc.localize.movie import Assumptions, Options, prepare
from sureloc.localize.tally import Tally
from sureloc.localize.verdict import Doubt, Verdict, judge, region_doubts
from sureloc.networks.weights import Networks, load_weights
from sureloc.report.molecules import Molecules
from sureloc.report.packing import read_rows
from sureloc.report.page import ReportContent, write_report
from sureloc.report.pictures import Picture, draw_picture, pictures_of
from sureloc.runs.execution import do_units
from sureloc.runs.first_run import say_if_compiling
from sureloc.runs.job import ASSUMPTIONS, Job, identity_of, keep_assumptions, write_job
from sureloc.runs.partial import PartialRun, check_finished, open_partial
from sureloc.runs.parts import sound_parts
from sureloc.runs.results import gather_sums, write_fine_images, write_tables
from sureloc.runs.scheduler import THREADS, check_scheduler
from sureloc.shipped import shipped_weights
from sureloc.table import LOCALIZATION_COLUMNS

USUAL_PIXEL_NM = 100.0  # taken where nothing says it


@dataclass(frozen=True)
class Outcome:
    """What a run found, beside its files.

    Attributes:
        verdict: how far it can be trusted.
        rows: localizations.
        frames: how many were looked at.
        seconds: wall time.
        comparison: with the truth, if one was given.
        notes: what was assumed and how it was found, and what is to be said of the tables, a
            sentence each.
    """

    verdict: Verdict
    rows: int
    frames: int
    seconds: float
    comparison: Comparison | None
    notes: tuple[str, ...]


@dataclass
class _Clock:
    begin: float = field(default_factory=time.perf_counter)
    prepared: float = 0.0

    def since(self) -> float:
        return time.perf_counter() - self.begin


def localize_file(
    movie: str | Path,
    out: str | Path,
    *,
    camera: str | Path | Camera | None = None,
    pixel_nm: float | None = None,
    sigma_px: float | None = None,
    density_per_um2: float | None = None,
    mean_photons: float | None = None,
    background_photons: float | None = None,
    trust_camera: bool = False,
    draws: int = 16,
    seed: int = 0,
    roi: str | None = None,
    frames: str | None = None,
    weights: str | Path = "fast",
    device: str = "auto",
    workers: int = 2,
    min_probability: float = 0.5,
    rounds: int = Effort.rounds,
    resume: bool = False,
    scheduler: str = THREADS,
    command: str = "sureloc.localize_file",
    bar: Callable[[int], AbstractContextManager[Callable[[], None]]] | None = None,
    say: Callable[[str], None] = lambda _text: None,
    pause: Callable[[], None] = go_on,
) -> Outcome:
    """Localize the molecules of a movie on disk; what `sureloc localize` does.

    Args:
        movie: file or folder of any format that `sureloc.io.movies.open_movie` opens.
        out: new folder for the results.
        camera: camera of the whole frame, or its file (YAML, .npz, Picasso .hdf5); estimated from
            the movie without it.
        pixel_nm: pixel size in the sample, nm; without it what the file says, else 100. A file that
            says that pixels are not square is refused without it.
        sigma_px: PSF standard deviation, px; estimated from the movie without it.
        density_per_um2, mean_photons, background_photons: emitters per square micrometre and
            frame, photons of an emitter and background photons per pixel on average; each is
            learned from the movie where it is not given.
        trust_camera: keep the offset of a given camera also where the movie's noise contradicts it.
        draws: posterior draws in draws.parquet.
        seed: the same seed gives the same results.
        roi: rows and columns to use, "y0:y1,x0:x1".
        frames: frames to use, "a:b".
        weights: name of shipped weights, path of a .safetensors file, or folder of `sureloc adapt`;
            chains only begin at draws, and end in the same rows from those of one evaluation
            ("fast") as of eight ("default").
        device: "auto", "cpu" or "cuda", for the networks.
        workers: threads or processes; results do not depend on them.
        min_probability: rows that exist with less than this are left out.
        rounds: how often chains are made twice as long where rows want more draws, and once: more
            rounds make rows of crowds more precise, and take longer.
        resume: go on with a run that was stopped, if there is one; it must be the same.
        scheduler: "threads"; "processes", or "auto" for what is faster of the two, from a script
            that begins nothing when it is imported (`if __name__ == "__main__"`); or the address of
            a dask.distributed scheduler, whose workers must see movie and folder under the same
            names.
        command: remembered in the files.
        bar: gives, for a number of frames, a context whose value is called after each.
        say: tells people something on the way.
        pause: called often, from any thread of this process; what it raises, or what `bar` gives
            raises, stops the run.

    Raises:
        InputError: movie, camera, weights, options or folder cannot be used.
        FinishedError: `resume`, and the same run was finished before.
        OutputError: a file could not be written; what was done is kept, to be resumed.
    """
    check_place(Path(out), resume=resume)
    check_scheduler(scheduler)
    networks = load_weights(weights, _device(device))
    used = camera if isinstance(camera, Camera) or camera is None else read_camera(Path(camera))
    with open_movie(Path(movie)) as whole:
        pixel, note, warning = _pixel_size(pixel_nm, whole)
        options = Options(
            pixel,
            sigma_px,
            draws,
            seed,
            min_probability,
            workers,
            density_per_um2=density_per_um2,
            mean_photons=mean_photons,
            background_photons=background_photons,
            trust_camera=trust_camera,
            effort=Effort(rounds=rounds),
        )
        part = whole.cut(roi, frames)
        if used is not None:
            used = used.of_part(part.shape[1:], whole.full_shape, part.rows, part.columns)
        provenance = {
            "command": command,
            "movie": str(movie),
            PIXEL_SIZE_FROM: _pixel_size_from(pixel_nm, whole),
            "camera": "given" if isinstance(camera, Camera) else camera and str(camera),
            CAMERA_FILE: _camera_file(camera),
            "weights_from": _weights_from(weights),
            "roi": roi,
            "frames": frames,
            "device": device,
            "workers": workers,
        }
        with (bar or _no_bar)(part.frames) as advance:
            return localize_movie(
                part,
                used,
                options,
                Path(out),
                provenance,
                networks,
                notes=[note],
                warnings=warning,
                progress=advance,
                resume=resume,
                scheduler=scheduler,
                say=say,
                pause=pause,
            )


def _camera_file(camera: str | Path | Camera | None) -> str | None:
    """Give what finds a camera's file again from any folder, None where there is no file."""
    return None if camera is None or isinstance(camera, Camera) else str(Path(camera).resolve())


def _weights_from(weights: str | Path) -> str:
    """Give what finds weights again from any folder: their name, or their whole path."""
    return str(weights) if str(weights) in shipped_weights() else str(Path(weights).resolve())


def _pixel_size(given: float | None, movie: Movie) -> tuple[float, str, list[str]]:
    """Give the pixel size, nm, where it is from, and a warning where the file contradicts.

    Raises:
        MovieError: none is given, and the file says that pixels are not square.
    """
    stated = movie.pixel_nm
    if given is None:
        movie.check_square_pixels()
        if stated is None:
            note = (
                f"Nothing says how large pixels are; {USUAL_PIXEL_NM:g} nm were taken (--pixel-nm)."
            )
            return USUAL_PIXEL_NM, note, [Doubt.PIXEL_ASSUMED.clause(taken=USUAL_PIXEL_NM)]
        return stated, f"The pixel size is {stated:g} nm, as the file says.", []
    if movie.oblong_pixel_nm is not None:
        x_nm, y_nm = movie.oblong_pixel_nm
        note = f"The pixel size was given: {given:g} nm. The file says {x_nm:g} x {y_nm:g} nm."
        return given, note, [Doubt.OBLONG_PIXELS.clause(x=x_nm, y=y_nm)]
    if stated is not None and not same_pixel_nm(stated, given):
        note = f"The pixel size was given: {given:g} nm. The file says {stated:g} nm."
        return given, note, [Doubt.PIXEL_SIZE.clause(stated=stated, given=given)]
    return given, f"The pixel size was given: {given:g} nm.", []


def _pixel_size_from(given: float | None, movie: Movie) -> str:
    """Say in a word where the pixel size is from, for the record of the run and its tables."""
    if given is not None:
        return "given"
    return ASSUMED if movie.pixel_nm is None else "file"


def _device(name: str) -> str:
    has_gpu = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if has_gpu else "cpu"
    if name not in ("cpu", "cuda") or (name == "cuda" and not has_gpu):
        raise InputError(
            f"The device {name!r} cannot be used here; give auto or cpu"
            + (" or cuda." if has_gpu else ". PyTorch finds no CUDA device.")
        )
    return name


@contextmanager
def _no_bar(_frames: int) -> Iterator[Callable[[], None]]:
    yield lambda: None


def localize_movie(
    movie: Movie,
    camera: Camera | None,
    options: Options,
    out: Path,
    provenance: dict[str, Any],
    networks: Networks,
    *,
    truth: pd.DataFrame | None = None,
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
    progress: Callable[[], None] = lambda: None,
    resume: bool = False,
    scheduler: str = THREADS,
    say: Callable[[str], None] = lambda _text: None,
    pause: Callable[[], None] = go_on,
) -> Outcome:
    """Localize an open movie and write the folder of results, whole or not at all.

    Args:
        movie: the movie, or the selected part of one.
        camera: the camera, or None to estimate it.
        options: what the user decided.
        out: new folder.
        provenance: what to remember in the files: command, seed, options.
        networks: trained networks.
        truth: true positions in the movie's coordinates, to compare with; none in earnest.
        notes, warnings: what the report shall say beside what `prepare` found.
        progress: called after every frame.
        resume, scheduler, say, pause: as in `localize_file`.

    Raises:
        InputError: movie, camera or folder cannot be used.
        FinishedError: `resume`, and the same run was finished before.
        OutputError: a file could not be written; what was done is kept, to be resumed.
    """
    clock = _Clock()
    check_place(out, resume=resume)
    say_if_compiling(say)
    provenance = {
        **provenance,
        "version": metadata.version("sureloc"),
        "weights": networks.card.name,
        **_chosen(options),
    }
    identity = identity_of(movie, camera, options, networks)
    if resume:
        check_finished(out, identity)
    with open_partial(out, identity, provenance, resume=resume) as run:
        assumptions = _assumptions(run, movie, camera, options, networks, notes, warnings, pause)
        clock.prepared = clock.since()
        job = Job(run.folder, movie, options, networks, assumptions, pause)
        _do_all(job, scheduler, progress, say)
        outcome = _write_results(job, run, truth, clock)
        run.finish()
    return outcome


def _assumptions(
    run: PartialRun,
    movie: Movie,
    camera: Camera | None,
    options: Options,
    networks: Networks,
    notes: Sequence[str],
    warnings: Sequence[str],
    pause: Callable[[], None],
) -> Assumptions:
    """Learn what is taken for granted, or read what a run that was stopped had learned."""
    path = run.folder / ASSUMPTIONS
    if path.exists():
        with suppress(InputError):  # damaged: the same is learned again
            return read_assumptions(path)
    found = prepare(movie, camera, options, networks, pause)
    found = replace(found, notes=(*notes, *found.notes), warnings=(*warnings, *found.warnings))
    keep_assumptions(found, run.folder)
    return read_assumptions(path)


def _do_all(
    job: Job, scheduler: str, progress: Callable[[], None], say: Callable[[str], None]
) -> None:
    """Do the units that are not done yet."""
    sound, damaged = sound_parts(job.parts, job.units)
    if damaged:
        say(f"{len(damaged)} of the parts kept in {job.folder} were damaged and are made again.")
    if sound:
        say(f"{len(sound):,} of {len(job.units):,} parts were there already.")
    write_job(job)
    done = sum(u.share * (u.frames[1] - u.frames[0]) for u in job.units if u.number in sound)
    for _ in range(int(done + 1e-6)):
        progress()
    do_units(job, [u for u in job.units if u.number not in sound], scheduler, progress, say)


def _write_results(job: Job, run: PartialRun, truth: pd.DataFrame | None, clock: _Clock) -> Outcome:
    """Make the results of a run whose parts are all there."""
    movie, options = job.movie, job.options
    folder = run.new_result()
    place = Place(movie.rows.start, movie.columns.start, movie.frame_range.start, options.pixel_nm)
    camera = job.assumptions.camera
    read_variance = camera.read_variance_e2((movie.height, movie.width))
    psf_nm = float(np.mean(job.assumptions.sigma_px)) * options.pixel_nm
    noise = camera.photon_noise((movie.height, movie.width))
    region = (movie.rows.start, movie.rows.stop), (movie.columns.start, movie.columns.stop)
    height, width = movie.full_shape
    geometry = Geometry(
        options.pixel_nm,
        width,
        height,
        movie.frame_range.stop,
        psf_nm,
        *noise,
        region_px=None if region == ((0, height), (0, width)) else region,
    )
    provenance = {**run.provenance, "geometry": asdict(geometry)}
    # For `sureloc audit`; tables and images are the same wherever the command was called.
    camera_file = provenance.pop(CAMERA_FILE, None)
    faint = Faint(
        job.assumptions.sigma_px,
        camera.excess_noise,
        float(np.median(read_variance)),
        camera.quantum_efficiency,
    )
    tally = Tally(
        options.pixel_nm, movie.frames, read_variance, camera.excess_noise, Doubles(psf_nm), faint
    )
    sums = gather_sums(job)
    images = sums.images
    mean_chi2 = images.chi2 / max(images.frames, 1)
    doubts = region_doubts(mean_chi2, images.doubt, images.frames, job.assumptions.sigma_px)
    with TablesWriter(folder, place, geometry, provenance) as writer:
        write_tables(job, writer, doubts, sums, tally, place)
    assumptions = _with_saturation(job.assumptions, tally)
    assumptions = replace(assumptions, notes=(*assumptions.notes, *tally.faint.notes))
    verdict = judge(
        tally.rows,
        tally.reasons,
        tally.absent,
        float(mean_chi2.mean()),
        doubts,
        tally.doubles.excess,
        assumptions.learned.prior.density_per_px2,
        assumptions.warnings,
    )
    overview = write_fine_images(job, folder, images, verdict.mask, place, provenance)
    pictures = list(pictures_of(images, overview))
    for picture in pictures:
        job.pause()
        draw_picture(picture, folder / f"{picture.name}.png")
    comparison = None
    if truth is not None:
        comparison = compare(read_table(folder / LOCALIZATIONS, LOCALIZATION_COLUMNS), truth)
    record = _record(movie, options, assumptions, verdict, tally, comparison, clock)
    record["weights"] = job.networks.card.model_dump(mode="json")
    record[CAMERA_FILE] = camera_file
    write_run(folder / RUN, {**provenance, **record, "identity": dict(run.identity)})
    molecules = Molecules(
        read_rows(folder / LOCALIZATIONS, tally.rows),
        tally.rows,
        options.pixel_nm,
        psf_nm,
        *noise,
        (place.first_row, place.first_column, movie.height, movie.width),
    )
    content = _content(
        *(job, run, place, verdict, tally, images, assumptions, pictures, molecules, comparison)
    )
    record_of_time = f"{clock.since():.0f} s, {images.frames / clock.since():.2f} frames/s"
    content = replace(content, record={**content.record, "time to this page": record_of_time})
    job.pause()
    write_report(folder / REPORT, content)
    notes = (*assumptions.notes, *writer.notes)
    return Outcome(verdict, tally.rows, images.frames, clock.since(), comparison, notes)


def _content(
    job: Job,
    run: PartialRun,
    place: Place,
    verdict: Verdict,
    tally: Tally,
    images: ImageSums,
    assumptions: Assumptions,
    pictures: Sequence[Picture],
    molecules: Molecules,
    comparison: Comparison | None,
) -> ReportContent:
    """Give what the report shows."""
    return ReportContent(
        job.movie.path.name,
        verdict,
        tally,
        images,
        assumptions,
        pictures,
        molecules,
        place.first_row,
        place.first_column,
        place.first_frame,
        _facts(comparison),
        {
            "command": str(run.provenance.get("command", "")),
            "seed": str(job.options.seed),
            "weights": job.networks.card.name,
            **{f"version of {k}": v for k, v in versions().items()},
        },
    )


def _with_saturation(assumptions: Assumptions, tally: Tally) -> Assumptions:
    """Add a warning about saturated pixels, of which all frames had to be seen to know."""
    if not tally.saturated_frames:
        return assumptions
    clause = Doubt.SATURATED_FRAMES.clause(saturated=tally.saturated_frames, frames=tally.frames)
    return replace(assumptions, warnings=(*assumptions.warnings, clause))


def _chosen(options: Options) -> dict[str, object]:
    """Give the options that results depend on, as they are remembered."""
    chosen: dict[str, object] = {
        name: getattr(options, name)
        for name in (
            *("pixel_nm", "sigma_px", "density_per_um2", "mean_photons", "background_photons"),
            *("trust_camera", "draws", "seed", "min_probability"),
        )
    }
    return chosen | {"rounds": options.effort.rounds}


def _record(
    movie: Movie,
    options: Options,
    assumptions: Assumptions,
    verdict: Verdict,
    tally: Tally,
    comparison: Comparison | None,
    clock: _Clock,
) -> dict[str, object]:
    camera, learned = assumptions.camera, assumptions.learned
    return {
        "movie": {"name": movie.path.name, "shape": list(movie.shape)},
        "versions": versions(),
        "options": _chosen(options),
        "assumed": {
            "notes": list(assumptions.notes),
            "warnings": list(assumptions.warnings),
            "sigma_px": list(assumptions.sigma_px),
            "median_offset_adu": float(np.median(camera.offset_adu)),
            "median_gain_adu_per_e": float(np.median(camera.gain_adu_per_e)),
            "median_variance_adu2": float(np.median(camera.variance_adu2)),
            "camera_has_maps": camera.shape is not None,
            "quantum_efficiency": camera.quantum_efficiency,
            "em_gain": camera.em_gain,
            "saturation_adu": camera.saturation_in(movie.dtype),
            "density_per_px2": learned.prior.density_per_px2,
            "mean_photo_electrons": learned.prior.photons.mean,
            "mean_background_e": float(learned.background_e.mean()),
        },
        "verdict": {
            "trust": verdict.trust.value,
            "sentence": verdict.sentence,
            "doubt": verdict.doubt,
        },
        "localizations": tally.rows,
        "trusted": tally.trusted,
        "faint": tally.faint.faint,
        "molecules_per_draw": tally.per_draw.tolist(),
        "doubts": dict(tally.reasons),
        "mean_chi2": verdict.mean_chi2,
        "comparison": None if comparison is None else comparison.as_dict(),
        "seconds": {"preparing": clock.prepared, "all": clock.since()},
    }


def _facts(comparison: Comparison | None) -> dict[str, str]:
    if comparison is None:
        return {}
    return {
        "Jaccard index": f"{comparison.jaccard:.3f}",
        "error / bound": f"{comparison.rmse_over_crlb:.2f}",
        "68 % intervals hold": f"{100 * comparison.coverage_68:.1f} %",
        "95 % intervals hold": f"{100 * comparison.coverage_95:.1f} %",
    }

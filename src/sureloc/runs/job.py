"""What a run is: its movie, options, networks and assumptions, here and on other machines.

A job lies in the folder of its run, so that any process that sees the folder and the movie can work
on its units. Its identity says what results depend on; a run that was broken off goes on only as
the same.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from sureloc.camera import Camera
from sureloc.errors import MovieError
from sureloc.io.assumptions import read_assumptions, write_assumptions
from sureloc.io.movies import Movie, open_movie
from sureloc.localize.frames import Effort, go_on
from sureloc.localize.images import counting_window
from sureloc.localize.movie import Assumptions, FrameWorker, Options, spread_frames
from sureloc.localize.units import Unit, localize_unit, units_of
from sureloc.networks.weights import Networks, load_weights, save_weights
from sureloc.runs.parts import file_hash, force, write_part

JOB, ASSUMPTIONS, WEIGHTS, PARTS = "job.json", "assumptions.npz", "weights.safetensors", "parts"
FINGERPRINT_FRAMES = 16
_NUMERICS = ("numpy", "scipy", "numba", "torch")  # other versions may round otherwise


@dataclass
class Job:
    """A run that is ready to be worked on.

    Attributes:
        folder: of the broken-off or running run.
        movie: the movie, or its part.
        options: what the user decided.
        networks: trained networks.
        assumptions: what is taken for granted.
        pause: called often; what it raises stops the run.
        units: the work, in order.
    """

    folder: Path
    movie: Movie
    options: Options
    networks: Networks
    assumptions: Assumptions
    pause: Callable[[], None] = go_on

    def __post_init__(self) -> None:
        self.units: list[Unit] = units_of(self.movie.shape, self.assumptions.sigma_px)
        self._worker = FrameWorker(
            self.movie, self.assumptions, self.options, self.networks, pause=self.pause
        )

    @property
    def parts(self) -> Path:
        """Where parts lie."""
        return self.folder / PARTS

    @property
    def window_px(self) -> tuple[int, int]:
        """Rows and columns in which emitters are counted."""
        return counting_window(self.assumptions.sigma_px)

    def do(self, unit: Unit, progress: Callable[[], None] = lambda: None) -> None:
        """Do the work on a unit and write its part.

        Raises:
            OSError: the part cannot be written.
        """
        result = localize_unit(
            self._worker, unit, self.options, self.movie.shape, self.window_px, progress
        )
        write_part(self.parts, unit, result)


def identity_of(
    movie: Movie, camera: Camera | None, options: Options, networks: Networks
) -> dict[str, Any]:
    """Give everything that results depend on, as JSON-serializable numbers, texts and hashes.

    A movie is told by its shape and some of its frames, not by its name or date.
    """
    chosen = asdict(options)
    del chosen["workers"]
    return {
        "movie": {
            "shape": list(movie.shape),
            "type": str(movie.dtype),
            "rows": [movie.rows.start, movie.rows.stop],
            "columns": [movie.columns.start, movie.columns.stop],
            "frames": [movie.frame_range.start, movie.frame_range.stop],
            "content": _movie_hash(movie),
        },
        "camera": None if camera is None else camera.fingerprint(movie.dtype),
        "options": chosen,
        "weights": {
            "name": networks.card.name,
            "content": _weights_hash(networks),
            "device": networks.device.type,
        },
        "versions": {
            "sureloc": metadata.version("sureloc"),
            "python": ".".join(platform.python_version_tuple()[:2]),
            **{name: metadata.version(name) for name in _NUMERICS},
        },
    }


def differences(now: Mapping[str, Any], before: Mapping[str, Any], where: str = "") -> list[str]:
    """Say in what two identities differ, a clause each."""
    out = []
    for name in sorted({*now, *before}):
        mine, theirs = now.get(name), before.get(name)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            # Options of the effort are options to people.
            inner = where if name == "effort" else f"{where}{name}: "
            out += differences(mine, theirs, inner)
        elif mine != theirs:
            hashed = name in ("content", "camera")
            what = "differs" if hashed else f"is {mine}, was {theirs}"
            out.append(f"{where}{name} {what}")
    return out


def _movie_hash(movie: Movie) -> str:
    digest = hashlib.sha256()
    for frame in spread_frames(movie.frames, FINGERPRINT_FRAMES):
        digest.update(movie.read(frame, frame + 1).tobytes())
    return digest.hexdigest()


def _weights_hash(networks: Networks) -> str:
    digest = hashlib.sha256(networks.card.model_dump_json().encode())
    for network in (networks.phi, networks.psi):
        for name, value in sorted(network.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_job(job: Job) -> None:
    """Write what other processes need to work on a job; parts lie beside it.

    Raises:
        OSError: a file cannot be written.
    """
    movie = job.movie
    content = {
        "movie": str(movie.path.resolve()),
        "rows": [movie.rows.start, movie.rows.stop],
        "columns": [movie.columns.start, movie.columns.stop],
        "frames": [movie.frame_range.start, movie.frame_range.stop],
        "options": asdict(job.options),
        "device": job.networks.device.type,
    }
    save_weights(job.networks, job.folder / WEIGHTS)
    content["weights_sha256"] = file_hash(job.folder / WEIGHTS)
    temporary = job.folder / f"{JOB}.part"
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(job.folder / JOB)


def open_job(folder: Path) -> Job:
    """Open a job that `write_job` wrote, with the movie where it was.

    Raises:
        InputError: the movie, the weights or what was learned cannot be read from here.
    """
    try:
        content = json.loads((folder / JOB).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MovieError(
            f"The run in {folder} cannot be read from here ({error}). All workers must see the "
            "same files under the same names."
        ) from error
    rows, columns, frames = (slice(*content[name]) for name in ("rows", "columns", "frames"))
    options = Options(**content["options"] | {"effort": Effort(**content["options"]["effort"])})
    return Job(
        folder,
        open_movie(Path(content["movie"])).select(rows, columns, frames),
        options,
        load_weights(folder / WEIGHTS, content["device"]),
        read_assumptions(folder / ASSUMPTIONS),
    )


def keep_assumptions(assumptions: Assumptions, folder: Path) -> None:
    """Write assumptions into a run's folder, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = folder / "writing.npz"
    write_assumptions(assumptions, temporary)
    force(temporary)
    temporary.replace(folder / ASSUMPTIONS)

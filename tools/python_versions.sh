#!/usr/bin/env bash
# Tests in a new environment of another Python, with other versions of what is installed.
#
#     tools/python_versions.sh PYTHON [constraints|newest|lowest] [MARKERS]
#
# PYTHON is 3.11 (by default with constraints.txt), 3.12 (likewise) or 3.13 (newest). `lowest` takes
# the lowest versions that pyproject.toml allows of what it names, and by default the smoke set; the
# others take the fast tests. The environment is made under $TMPDIR and removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$1
case $python in 3.11 | 3.12) usual=constraints ;; *) usual=newest ;; esac
versions=${2:-$usual}
case $versions in lowest) set=smoke ;; *) set="not slow" ;; esac
markers=${3:-$set}

# pyenv's shims start the version that this names.
export PYENV_VERSION=$python
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"python$python" -m venv "$folder"
pip=("$folder/bin/python" -m pip install -q)
case $versions in
  constraints) "${pip[@]}" -c constraints.txt '.[dev,docs,plan,study]' ;;
  newest) "${pip[@]}" '.[dev,docs,plan,study]' ;;
  lowest)
    "${pip[@]}" uv
    "$folder/bin/uv" pip compile -q --resolution lowest-direct --python-version "$python" \
      --extra dev --extra docs --extra study pyproject.toml -o "$folder/lowest.txt"
    "${pip[@]}" -r "$folder/lowest.txt"
    "${pip[@]}" --no-deps .
    ;;
  *)
    echo "versions: $versions, expected constraints, newest or lowest" >&2
    exit 2
    ;;
esac
"$folder/bin/python" --version
"$folder/bin/python" -m pip list 2>/dev/null | grep -E '^(jax|jaxlib|flax|optax|numpy|orbax-checkpoint) '
"$folder/bin/python" -m pytest -q -n 2 --dist loadfile -m "$markers"

#!/bin/sh
# Fetch what a machine with PyTorch and transformers, but without a network, lacks: sh scripts/gpu/wheels.sh FOLDER
set -e
folder=${1:-.whl}
here=$(dirname "$0")
mkdir -p "$folder"
exec python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version "${PYTHON_VERSION:-3.12}" \
    --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --platform any -d "$folder" -c "$here/../../constraints.txt" \
    diffusers pi-heif pydantic pydantic-core annotated-types typing-inspection

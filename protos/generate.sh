#!/bin/sh
# Regenerate the Python stubs beside the protos, or below the directory given (absolute).
# Needs the project's dev extra; PYTHON names the interpreter that has it.
set -eu
python=$("${PYTHON:-python}" -c 'import sys; print(sys.executable)')
cd "$(dirname "$0")"
out=${1:-.}
PATH="$(dirname "$python"):$PATH" "$python" -m grpc_tools.protoc -I . \
    --python_out="$out" --mypy_out="$out" --grpc_python_out="$out" --mypy_grpc_out="$out" \
    gvvad/v1/alert.proto gvvad/v1/delivery.proto gvvad/v1/model.proto gvvad/v1/score.proto gvvad/v1/stream.proto

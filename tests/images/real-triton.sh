#!/usr/bin/env bash
# The image of the real Triton Inference Server with its Python backend, torch and transformers, without a container
# registry: llmatrix-real/triton:test. Beside it, in the same image, a stand-in for TensorRT-LLM's LLM API.
#
# Usage: real-triton.sh [CACHE_DIRECTORY]     (else LLMATRIX_REAL_CACHE, else target/real)
#
# Needs root, Debian with its packages and PyPI in reach, a container engine, 6 GB of disk, some minutes. A second run
# finds the image made, and makes only the tiny model at CACHE_DIRECTORY/tiny-llama.
set -euo pipefail
source "$(dirname "$0")/real/debian.sh"

readonly IMAGE=llmatrix-real/triton:test
prepare triton.txt tensorrt_llm/__init__.py tensorrt_llm/llmapi/llm_utils.py -- "$@"
if is_made "$IMAGE"; then
  say "$IMAGE is there"
  exit
fi
debian
root="$cache/triton"
packages "$here/triton.txt" "$root"
cp -r "$here/tensorrt_llm" "$root/$SITE/"
# The places where the official image has its server.
server="/$SITE/pytriton/tritonserver"
cp "$root$server/python_backend_stubs/$PYTHON/triton_python_backend_stub" "$root$server/backends/python/"
mkdir -p "$root/opt/tritonserver/bin"
ln -s "$server/bin/tritonserver" "$root/opt/tritonserver/bin/tritonserver"
ln -s "$server/backends" "$root/opt/tritonserver/backends"
compile "$root"
import "$root" "$IMAGE" "ENV PATH=/opt/tritonserver/bin:/usr/local/bin:/usr/bin:/bin" "EXPOSE 8000 8002" 'CMD ["tritonserver"]'

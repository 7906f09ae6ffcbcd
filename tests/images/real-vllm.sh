#!/usr/bin/env bash
# The image of the real vLLM on a CPU, without a container registry: llmatrix-real/hf-vllm:test.
#
# Usage: real-vllm.sh [CACHE_DIRECTORY]     (else LLMATRIX_REAL_CACHE, else target/real)
#
# Needs root, Debian with its packages and PyPI in reach, a container engine, 12 GB of disk, some minutes. A second run
# finds the image made, and makes only the tiny model at CACHE_DIRECTORY/tiny-llama.
set -euo pipefail
source "$(dirname "$0")/real/debian.sh"

readonly IMAGE=llmatrix-real/hf-vllm:test VERSION=0.32.0
prepare vllm.txt -- "$@"
if is_made "$IMAGE"; then
  say "$IMAGE is there"
  exit
fi
debian
root="$cache/vllm"
packages "$here/vllm.txt" "$root"
# The program looks up its own version under the name that the package has elsewhere.
info="$root/$SITE/vllm-$VERSION+cpu.dist-info"
mkdir -p "$info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VERSION" >"$info/METADATA"
touch "$info/RECORD"
mkdir -p "$root/usr/local/bin"
# Its processes import this file again.
cat >"$root/usr/local/bin/vllm" <<'PROGRAM'
#!/usr/bin/python3
import sys

from vllm.entrypoints.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
PROGRAM
chmod +x "$root/usr/local/bin/vllm"
compile "$root"
import "$root" "$IMAGE" "ENV PATH=/usr/local/bin:/usr/bin:/bin" "EXPOSE 8000" 'ENTRYPOINT ["vllm","serve"]'

#!/usr/bin/env bash
# Builds, on the container engine that `docker` talks to, eight images that stand in for the engines' real ones:
# llmatrix-sim/{method}-{engine}:test, this program alone in an image from nothing. Each accepts the command line, the
# environment and the files that the real image would get, refuses what the real one refuses, and then serves as the
# simulator does (docs/simulator.md). No GPU and no network is needed.
#
#   tests/images/build.sh                      builds a static binary first, in target/static
#   tests/images/build.sh --binary PATH        packs a binary that is there, with the shared libraries it loads
#   tests/images/build.sh --tag NAME           another tag than `test`
#   llmatrix run experiments/eight-stacks.toml
set -euo pipefail
cd "$(dirname "$0")/../.."

binary=
tag=test
while (($#)); do
  case $1 in
    --binary) binary=${2:?--binary needs a path}; shift 2 ;;
    --tag) tag=${2:?--tag needs a name}; shift 2 ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "$0: unknown argument $1; see --help" >&2; exit 2 ;;
  esac
done

if ! docker version >/dev/null 2>&1; then
  echo "$0: no container engine answers (\`docker version\`)" >&2
  exit 7
fi

if [[ -z $binary ]]; then
  # Not musl: its allocator and resolver are other ones than those of the program that is released. A directory of its
  # own, so that other builds stay valid.
  triple=x86_64-unknown-linux-gnu
  RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" \
    cargo build --locked --bin llmatrix --target "$triple" --target-dir target/static
  binary=target/static/$triple/debug/llmatrix
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# What the real images have and programs expect: a place for sockets and probes, and NIM's cache.
mkdir -p "$root/bin" "$root/tmp" "$root/opt/nim/.cache" "$root/root"
chmod 1777 "$root/tmp"
cp "$binary" "$root/bin/llmatrix"
# Symbols make it four times as large; without the tool it is only slower.
strip "$root/bin/llmatrix" 2>/dev/null || true
# A static binary has none.
for library in $({ ldd "$binary" 2>/dev/null || true; } | tr ' \t' '\n\n' | grep '^/' | sort -u || true); do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done

base=llmatrix-sim/base:$tag
tar -C "$root" -c . | docker import -c "LABEL llmatrix.test=$tag" - "$base" >/dev/null

for stack in hf-vllm hf-sglang hf-trtllm triton-vllm triton-python triton-trtllm nim-vllm unim-vllm; do
  image=llmatrix-sim/$stack:$tag
  # The classic builder: it is part of every engine, and these are two lines.
  DOCKER_BUILDKIT=0 docker build --quiet --tag "$image" - >/dev/null 2>&1 <<DOCKERFILE
FROM $base
ENTRYPOINT ["/bin/llmatrix", "sim", "--flavor", "$stack", "--as-image"]
DOCKERFILE
  echo "$image"
done

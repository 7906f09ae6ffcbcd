#!/usr/bin/env python3
"""Stands in for the CUDA libraries that PyPI's torch is linked with.

The loader wants them when torch is imported; a machine without GPU never calls into them. They are 2.7 GB. For each one
that is not there, this makes a library of a few kilobytes that defines every symbol torch asks of it, each of which stops
the program. Usage: cuda_stubs.py SITE_PACKAGES. Needs `readelf`, `nm` and a C compiler.
"""

import collections
import pathlib
import re
import subprocess
import sys
import tempfile

# Functions of libraries that do not version their symbols.
UNVERSIONED = re.compile(r"(cusparseLt|nccl|nvshmem|cuFile|cufft|curand|nvJitLink)\w*")


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wanted(libraries):
    """Library → versions that are asked of it; version → symbols, under "" those without one."""
    versions, symbols = collections.defaultdict(set), collections.defaultdict(set)
    for library in libraries:
        for name in re.findall(r"\(NEEDED\).*\[(.+)\]", output("readelf", "-dW", library)):
            versions[name] |= set()
        needed = output("readelf", "-VW", library).partition("Version needs section")[2]
        for line in needed.splitlines():
            if found := re.search(r"File: (\S+)", line):
                file = found[1]
            elif found := re.search(r"Name: (\S+)", line):
                versions[file].add(found[1])
        for line in output("nm", "-D", "--undefined-only", library).splitlines():
            name, _, version = line.split()[-1].partition("@")
            symbols[version.lstrip("@")].add(name)
    return versions, symbols


def make(path, versions, symbols, scratch):
    plain = {name for name in symbols[""] if UNVERSIONED.fullmatch(name)}
    every = plain.union(*(symbols[version] for version in versions))
    source, script = scratch / "stub.s", scratch / "stub.map"
    labels = "".join(f".globl {name}\n.type {name},@function\n{name}:\n" for name in sorted(every))
    source.write_text(f'.text\n{labels}ud2\n.section .note.GNU-stack,"",@progbits\n')
    nodes = (f'{version} {{ global: {" ".join(n + ";" for n in sorted(symbols[version]))} }};' for version in versions)
    script.write_text("\n".join(nodes) + "\n")
    command = ["cc", "-shared", "-nostdlib", f"-Wl,-soname,{path.name}", "-o", path, source]
    subprocess.run(command + ([f"-Wl,--version-script,{script}"] if versions else []), check=True)


def main(site):
    torch = site / "torch/lib"
    versions, symbols = wanted(sorted(torch.glob("*.so*")))
    there = {path.name for path in [*torch.iterdir(), *site.glob("nvidia/**/*.so*")]}
    # Found by every library of torch, whose search path ends with the directory that it is in.
    missing = sorted(name for name in versions if re.match(r"lib(cu|nccl|nv)", name) and name not in there)
    # The driver's own library is loaded only where a GPU is used.
    missing.remove("libcuda.so.1")
    with tempfile.TemporaryDirectory() as scratch:
        for name in missing:
            make(torch / name, versions[name], symbols, pathlib.Path(scratch))
    print(f"{len(missing)} CUDA libraries stand in for the real ones: {' '.join(missing)}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

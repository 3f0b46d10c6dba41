"""Writes the recorded space of the tests: no measurements, a formula in the formats of measurements.

The same space as a Kernel Tuner cache file (gzip) and as a T4 file (plain): numbers, names and
truth values as parameters, a rule that leaves points out, and points that fail.
"""

import gzip
import itertools
import json
import pathlib

PARAMETERS = {
    "tile": [8, 16, 32, 64, 128],
    "stages": [1, 2, 3, 4],
    "layout": ["row", "column", "blocked"],
    "unroll": [1, 2, 4],
    "staged": [False, True],
    "precision": [16],
}


def milliseconds(tile, stages, layout, unroll, staged, precision):
    """None where the configuration fails."""
    if tile == 64 and stages == 4:
        return None
    work = 1.0 + abs({8: 0, 16: 1, 32: 2, 64: 3, 128: 4}[tile] - 3) * 0.4
    wait = 1.0 / stages + (0.3 if staged and stages == 1 else 0.0)
    order = {"row": 0.35, "column": 0.9, "blocked": 0.0}[layout] * (0.5 if staged else 1.0)
    loop = 0.12 * abs(unroll - 4) / 4 + (0.5 if unroll * tile > 512 else 0.0)
    return round(work * (1.0 + 0.6 * wait) + order + loop, 6)


def main():
    folder = pathlib.Path(__file__).parent
    cache, results = {}, []
    for values in itertools.product(*PARAMETERS.values()):
        configuration = dict(zip(PARAMETERS, values))
        if configuration["tile"] * configuration["stages"] > 256:
            continue
        time = milliseconds(**configuration)
        failed = time is None
        key = ",".join(str(value) for value in values)
        cache[key] = {**configuration, "time": "RuntimeFailedConfig" if failed else time}
        results.append({
            "configuration": configuration,
            "invalidity": "runtime" if failed else "correct",
            "measurements": [
                {"name": "time", "value": "RuntimeFailedConfig" if failed else time, "unit": "ms"}
            ],
        })
    document = {
        "device_name": "a formula",
        "kernel_name": "synthetic",
        "tune_params_keys": list(PARAMETERS),
        "tune_params": PARAMETERS,
        "objective": "time",
        "cache": cache,
    }
    text = json.dumps(document).encode()
    (folder / "synthetic.json.gz").write_bytes(gzip.compress(text, mtime=0))
    t4 = {"metadata": {"timeunit": "milliseconds"}, "schema_version": "1.0.0", "results": results}
    lines = json.dumps(t4).replace('{"configuration"', '\n{"configuration"')
    (folder / "synthetic_T4.json").write_text(lines + "\n")


if __name__ == "__main__":
    main()

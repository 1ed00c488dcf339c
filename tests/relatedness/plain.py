"""Eq. 2-4 of PAR as they are written, with loops over tasks, classes and samples, in float64: what the fast version is held against."""

import math

import numpy as np


def plain_divergences(features, labels, classes, earlier, clamp="pair", leave_one_out=False, few=False, few_images=0):
    """Eq. 4 to each earlier task; `earlier` is a list of (features, labels, classes)."""
    x = np.asarray(features, dtype=np.float64)
    y = np.asarray(labels)
    floor = max(2.0**-23 * math.sqrt((x**2).sum() / len(x)), math.sqrt(np.finfo(np.float64).tiny))
    results = []
    for task in earlier:
        means, held = class_means(*task), [n for n in np.bincount(np.asarray(task[1])) if n]
        noise = 0.25 * math.log(1 + sum(1 / n for n in held) / len(held)) if few or min(held) < few_images else 0
        per_class = []
        for c in range(classes):
            members = [i for i in range(len(x)) if y[i] == c]
            if len(members) < (2 if leave_one_out or few else 1):
                continue
            ratios = []
            for i in members:
                centre = np.mean([x[m] for m in members if m != i or not leave_one_out], axis=0)
                bessel = math.sqrt(len(members) / (len(members) - 1)) if few and not leave_one_out else 1
                rho = max(np.linalg.norm(x[i] - centre) * bessel, floor)
                nu = max(min(np.linalg.norm(x[i] - mean) for mean in means), floor)
                ratios.append(math.log(nu / rho) - noise)
            ratio = sum(ratios) / len(ratios)
            per_class.append(max(ratio, 0.0) if clamp == "class" else ratio)
        total = sum(per_class) / len(per_class) * classes
        results.append(max(total, 0.0) if clamp == "pair" else total)
    return np.array(results)


def class_means(features, labels, classes):
    x, y = np.asarray(features, dtype=np.float64), np.asarray(labels)
    return [x[y == c].mean(axis=0) for c in range(classes) if (y == c).any()]

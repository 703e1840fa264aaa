"""What `mutations.py` breaks, one thing at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """`old` in a file of `itopctl/dst` becomes `new`; test files named after `tests` are asked first, then all."""

    what: str
    file: str
    old: str
    new: str
    tests: str = "engine"


MUTATIONS = [
    # Drop rules
    Mutation(
        "magnitude drops the largest", "drop.py", "return layer.weight.abs()", "return -layer.weight.abs()", "drop"
    ),
    Mutation("magnitude forgets the sign", "drop.py", "return layer.weight.abs()", "return layer.weight", "drop"),
    Mutation("global magnitude ranks layer by layer", "drop.py", ', scope="network"', "", "drop"),
    Mutation(
        "sign-split drops the most negative", "drop.py", "highest(weight[others]", "lowest(weight[others]", "drop"
    ),
    Mutation(
        "sign-split drops the most positive", "drop.py", "lowest(weight[positive]", "highest(weight[positive]", "drop"
    ),
    Mutation(
        "sign-split drops more positives than it should drop weights",
        "drop.py",
        "min(round(layer.drop_fraction * positive.numel()), count)",
        "round(layer.drop_fraction * positive.numel())",
        "drop",
    ),
    Mutation(
        "sign-split ignores a shortage of negatives",
        "drop.py",
        "    of_positive = max(of_positive, count - others.numel())\n",
        "",
        "drop",
    ),
    Mutation("sign-split takes zeros for positive", "drop.py", "(weight > 0)", "(weight >= 0)", "drop"),
    Mutation(
        "Taylor and sensitivity forget the weight",
        "drop.py",
        "return weight * gradient if",
        "return gradient if",
        "drop",
    ),
    Mutation(
        "Taylor and sensitivity keep the sign",
        "drop.py",
        "return _product(layer).abs()",
        "return _product(layer)",
        "drop",
    ),
    Mutation("MEST subtracts the gradient", "drop.py", "+ gradient_weight *", "- gradient_weight *", "drop"),
    Mutation("MEST forgets λ", "drop.py", "gradient_weight * layer", "layer", "drop"),
    Mutation("threshold is strict", "drop.py", "<= drop_threshold", "< drop_threshold", "drop"),
    Mutation("threshold keeps the sign", "drop.py", "layer.weight.abs() <=", "layer.weight <=", "drop"),
    Mutation(
        "gradient drops are asked after the step", "engine.py", "self._topology.drop_reads_gradient", "False", "drop"
    ),
    # Growth rules
    Mutation(
        "gradient growth takes the smallest",
        "growth.py",
        "return layer.gradient.abs()",
        "return -layer.gradient.abs()",
        "growth",
    ),
    Mutation(
        "gradient growth keeps the sign", "growth.py", "return layer.gradient.abs()", "return layer.gradient", "growth"
    ),
    Mutation(
        "momentum growth keeps the sign", "growth.py", "return layer.momentum.abs()", "return layer.momentum", "growth"
    ),
    Mutation(
        "momentum growth reads the gradient",
        "growth.py",
        "return layer.momentum.abs()",
        "return layer.momentum.abs() * 0",
        "growth",
    ),
    Mutation(
        "momentum sees the masked gradient",
        "gradients.py",
        "self._without_overflow(multiplied_out(gradients[name]), average)",
        "self._without_overflow(multiplied_out(gradients[name]), average) * (weights_of(self)[name] != 0)",
        "growth",
    ),
    Mutation("the moving average decays the other way", "gradients.py", "1.0 - self._decay)", "self._decay)", "growth"),
    Mutation(
        "neurons share growth alike",
        "growth.py",
        "apportion(rows.double().mean(dim=1).tolist()",
        "apportion([1.0] * layer.shape[0]",
        "growth",
    ),
    Mutation(
        "unexplored weights are not preferred",
        "growth.py",
        "if count <= unexplored.numel():",
        "if count < 0:",
        "growth",
    ),
    Mutation(
        "exploration bonus is taken off",
        "growth.py",
        "layer.gradient.abs() + bonus",
        "layer.gradient.abs() - bonus",
        "growth",
    ),
    Mutation(
        "exploration bonus without logarithm",
        "growth.py",
        "math.log(max(layer.step, 1))",
        "max(layer.step, 1)",
        "growth",
    ),
    Mutation(
        "exploration bonus forgets the offset",
        "growth.py",
        "(layer.times_active + exploration_offset)",
        "(layer.times_active + 1e-9)",
        "growth",
    ),
    Mutation(
        "times active are not counted",
        "masked_layer.py",
        "            self.times_active += flags\n",
        "            pass\n",
        "growth",
    ),
    Mutation(
        "the initial topology is not counted",
        "layer.py",
        "self.times_active[self.active_positions()] = 1",
        "self.times_active[self.active_positions()] = 0",
        "growth",
    ),
    Mutation(
        "all candidates are sampled",
        "growth.py",
        "math.floor(round(sampled_share * layer.active_count, 9))",
        "layer.candidate_count",
        "growth",
    ),
    Mutation(
        "of the samples the first grow",
        "growth.py",
        "sampled[highest(layer.at(sampled).gradient.abs(), count, layer.generator)]",
        "sampled[:count]",
        "growth",
    ),
    Mutation(
        "absolute values before the mean over batches",
        "gradients.py",
        "self.mean[name] = gradient.clone()",
        "self.mean[name] = gradient.abs()",
        "growth",
    ),
    Mutation(
        "batches are summed",
        "gradients.py",
        "lerp_(multiplied_out(gradient), 1 / self._averaged)",
        "add_(multiplied_out(gradient))",
        "growth",
    ),
    Mutation(
        "the window is a batch too long",
        "gradients.py",
        "due - step < self._window",
        "due - step <= self._window",
        "growth",
    ),
    # Update
    Mutation(
        "just dropped weights are no candidates",
        "layer_view.py",
        "return replace(self, kept=kept, entries=None, _rows=None, step=step)",
        "return replace(self, kept=self.kept, entries=None, _rows=None, step=step)",
    ),
    Mutation(
        "forbidden entries score 0", "top_k.py", "scores[forbidden] = -torch.inf", "scores[forbidden] = 0.0", "select"
    ),
    Mutation(
        "forbidden entries may tie",
        "top_k.py",
        "tied = tied[~torch.isin(tied, forbidden)] if",
        "tied = tied if",
        "select",
    ),
    Mutation(
        "ties go to the first",
        "top_k.py",
        "tied = tied[distinct(tied.numel(), wanted, generator)]",
        "tied = tied[:wanted]",
        "select",
    ),
    Mutation(
        "a threshold drops every tie",
        "top_k.py",
        "np.flatnonzero(values >= threshold)",
        "np.flatnonzero(values > threshold)",
        "select",
    ),
    Mutation(
        "rank is one off",
        "top_k.py",
        "np.partition(values, values.size - count)[values.size - count]",
        "np.partition(values, values.size - count - 1)[values.size - count - 1]",
        "select",
    ),
    Mutation(
        "ranks outside a set are one off",
        "top_k.py",
        "torch.searchsorted(gaps, ranks, right=True)",
        "torch.searchsorted(gaps, ranks)",
        "select",
    ),
    Mutation(
        "rounding goes up always",
        "rules.py",
        'return math.floor(exact) if self.replace_rounding == "floor" else math.ceil(exact)',
        "return math.ceil(exact)",
    ),
    Mutation(
        "rounding goes down always",
        "rules.py",
        'return math.floor(exact) if self.replace_rounding == "floor" else math.ceil(exact)',
        "return math.floor(exact)",
    ),
    Mutation("float dust is rounded up", "rules.py", "exact = round(zeta * active, 9)", "exact = zeta * active"),
    Mutation(
        "the update never replaces the step",
        "engine.py",
        "if zeta is None or not self.rules.update_replaces_step:",
        "if True:",
    ),
    Mutation(
        "the update always replaces the step",
        "engine.py",
        "if zeta is None or not self.rules.update_replaces_step:",
        "if zeta is None:",
    ),
    Mutation(
        "all updates draw alike",
        "update.py",
        "generator = keyed_generator(self._seed, layer.index, update, device",
        "generator = keyed_generator(self._seed, layer.index, 1, device",
    ),
    Mutation(
        "all layers draw alike",
        "update.py",
        "keyed_generator(self._seed, layer.index, update, device",
        "keyed_generator(self._seed, 0, update, device",
    ),
    # Masks and state
    Mutation(
        "grown weights keep their old optimizer state",
        "masked_layer.py",
        "                self._masker.mask_(_rows(slot, rows), keep)\n",
        "                pass\n",
    ),
    Mutation(
        "weights are not masked after an update",
        "masked_layer.py",
        "        self._masker.mask_(_rows(self.parameter.detach(), rows), keep)\n",
        "",
    ),
    Mutation(
        "gradients are not masked",
        "gradient_masks.py",
        "            home.mask_gradient(gradient)\n",
        "            pass\n",
    ),
    Mutation(
        "grown weights keep their value",
        "masked_layer.py",
        "stay = keep.clone().bitwise_and_(wanted)",
        "stay = wanted",
    ),
    Mutation("new weights have no optimizer state of their own", "optimizers.py", "fresh.get(path, 0.0)", "0.0"),
    Mutation("writes are not noticed", "writes.py", "!= seen[number] and not", "== 0 and not", "writes"),
    Mutation("frozen layers are rewired", "scope.py", "(live if trained else frozen)", "live", "optimizers"),
    Mutation("attention's own products cost nothing", "flops.py", "density + self.products", "density", "flops"),
    Mutation(
        "a gradient changed since is taken for masked",
        "gradient_masks.py",
        " or (gradient is not None and seen[1] != gradient._version)",
        "",
    ),
    Mutation(
        "gradients are masked before growth sees them", "gradient_masks.py", "if not self._leave_dense():", "if True:"
    ),
    Mutation(
        "only the first chunk is masked",
        "masking.py",
        "        for piece, kept in zip(",
        "        for piece, kept in [*zip(",
        "masking",
    ),
    Mutation(
        "an optimizer that mixes weights is trusted",
        "engine.py",
        "if not self._optimizers.keep_zeros(self._least):",
        "if False:",
    ),
    Mutation(
        "an overflow under a scaler does not skip", "engine.py", "not self._step_gradients.finite(others)", "False"
    ),
    Mutation(
        "gradients that are not finite do not skip",
        "engine.py",
        "not overflow and all(finite(mean) for mean in self._gradients.mean.values())",
        "not overflow",
    ),
    Mutation(
        "ranks do not agree",
        "parallel.py",
        "        if self._group is None or not masks:\n",
        "        if True:\n",
        "parallel",
    ),
    Mutation(
        "the explored set forgets", "explored_set.py", "self.bits |= pack_bits(active)", "self.bits = pack_bits(active)"
    ),
    Mutation(
        "the explored set is not saved",
        "layer.py",
        '"explored": self.explored.bits.clone().cpu()',
        '"explored": pack_bits(self.active).cpu()',
    ),
    Mutation(
        "the moving average is not restored",
        "gradients.py",
        '            momentum.copy_(state["momentum"][name])\n',
        "            pass\n",
    ),
    Mutation(
        "the position in the schedule is not restored",
        "engine.py",
        '        self.steps_done = state["steps_done"]\n',
        "",
    ),
    Mutation(
        "the number of updates is not restored",
        "engine.py",
        '        self._topology.updates_done = state["updates_done"]\n',
        "",
    ),
    # Allocation, redistribution, schedules
    Mutation("ERK is not capped", "allocation.py", "if scale * largest <= 1.0:", "if True:", "allocation"),
    Mutation(
        "ER counts the kernel",
        "allocation.py",
        "((n_in + n_out) / (n_in * n_out)) ** power",
        "((n_in + n_out) / math.prod(shape)) ** power",
        "allocation",
    ),
    Mutation(
        "ERK forgets the kernel",
        "allocation.py",
        "sum(shape) / math.prod(shape)",
        "sum(shape[:2]) / math.prod(shape[:2])",
        "allocation",
    ),
    Mutation(
        "remainders are not settled", "allocation.py", "    while difference:\n", "    while False:\n", "allocation"
    ),
    Mutation("uniform-plus has a sparse first layer", "allocation.py", "    first=1.0,\n", "", "allocation"),
    Mutation("uniform-plus has a sparse last layer", "allocation.py", "    last_at_least=0.2,\n", "", "allocation"),
    Mutation(
        "nobody pays for dense layers",
        "allocation.py",
        "        budget -= math.fsum(",
        "        budget -= 0 * math.fsum(",
        "allocation",
    ),
    Mutation("shares ignore caps", "apportion.py", "if scaled[index] >= caps[index]]", "if False]", "redistribution"),
    Mutation(
        "remainders go to the smallest",
        "apportion.py",
        "round(counts[index] - shares[index], 9)",
        "round(shares[index] - counts[index], 9)",
        "redistribution",
    ),
    Mutation(
        "redistribution by the smallest momentum",
        "redistribution.py",
        "float(layer.momentum.abs().mean())",
        "1 / float(layer.momentum.abs().mean() + 1e-30)",
        "redistribution",
    ),
    Mutation(
        "redistribution forgets the sign of weights",
        "redistribution.py",
        "float(layer.weight.abs().mean())",
        "abs(float(layer.weight.mean()))",
        "redistribution",
    ),
    Mutation(
        "nearly dense layers are not spared", "update.py", "sparsity < _SNFS_DENSE and", "False and", "redistribution"
    ),
    Mutation("the cosine rises", "schedule.py", "(1 + math.cos(", "(1 - math.cos(", "schedule"),
    Mutation(
        "the floor of ζ is forgotten",
        "schedule.py",
        "schedule.final + (start - schedule.final) * left",
        "start * left",
        "schedule",
    ),
    Mutation("the exponential is linear", "schedule.py", "(1 - progress) ** power", "(1 - progress)", "schedule"),
    Mutation("an update at the very last step", "schedule.py", "if step >= end:", "if step > end:", "schedule"),
    Mutation("the first update is at step 0", "schedule.py", "if step <= 0 or step", "if step < 0 or step", "schedule"),
    # Expectation and costs
    Mutation(
        "all inactive weights are candidates", "expected.py", "(size - active + grown)", "(size - active)", "expected"
    ),
    Mutation(
        "the shortest interval is given",
        "expected.py",
        "return longest - _first(",
        "return shortest + 0 * _first(",
        "expected",
    ),
    Mutation(
        "a transposed convolution costs its outputs",
        "flops.py",
        "used = next(iter((*inputs, *named.values()))) if transposed else output",
        "used = output",
        "flops",
    ),
    Mutation("no ReLU is counted", "flops.py", "2 * macs + self.outputs", "2 * macs", "published"),
    Mutation("masks have no size", "flops.py", "+ mask + 32 * self.channels", "+ 32 * self.channels", "published"),
]

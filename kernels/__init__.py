"""Everything that touches elements: ``fusedloss.kernels``.

The kernel contract
-------------------
A backend is a module (``reference``, ``cpu``), or an object that ``cuda`` makes for a stream of a card, with the
functions below, all under the same names. Each *binds* one call: it takes arrays in normal form, options and
preallocated outputs, picks the specialised kernel, and returns ``run(lo, hi) -> int``, which fills rows ``lo … hi-1``
of the outputs. ``run`` allocates nothing that grows with the batch, raises nothing, reduces nothing over the batch but
the sums of blocks that it is asked for, touches no other row, releases the GIL, and may be called from any thread for
disjoint ranges. It returns the first offence it met (see *Status*), or -1.

Normal form of the row kernels
    ``x`` is ``(outer, C, inner)`` with any strides, native byte order, of dtype float16, bfloat16, float32 or float64.
    A *row* is one ``(outer, inner)`` position, numbered ``o * inner + i``; there are ``R = outer * inner``.
    A hard ``target`` is int64 of shape ``(R,)``; a soft one is ``(outer, C, inner)``, floating, any strides.
    ``class_weight`` is ``(C,)`` and ``sample_weight`` ``(R,)``, both contiguous, of the result dtype, or None. Weights
    may be negative or NaN, and multiply as they are: derivatives need it. Those of callers are checked in ``src/``.
    Per-row outputs are ``(R,)``, contiguous, of the result dtype: float32, or float64 for float64 ``x``.
    ``grad`` and ``out`` are ``(outer, C, inner)`` of the dtype of ``x``, any strides; ``grad`` may be ``x`` itself.
    A row is masked when its hard target is ``ignore_index`` or its sample weight is 0: it does not count, its loss is
    0 and its gradient row is zeros. ``grad_scale`` multiplies every gradient.
    For arrays in host memory, ``sums``, float64 of shape (blocks, 2), may be given: ``run(lo, hi)`` then fills
    ``sums[lo // block]`` for each block of ``block`` rows with Σ loss and the number of rows whose hard target is not
    ``ignore_index``. Without weights ``run`` may then have ``run.again(x, target, loss, grad, sums, grad_scale)``:
    ``run`` for other arrays of the same forms.

::

    cross_entropy(x, target, loss, grad, *, class_weight, sample_weight, ignore_index, label_smoothing, z_loss,
                  logit_scale, softcap, grad_scale, block, sums)
    kl_divergence(x, target, loss, grad, *, sample_weight, logit_scale, grad_scale, block, sums)
    log_loss(x, target, loss, grad, *, class_weight, sample_weight, ignore_index, label_smoothing, eps, log_eps,
             normalize, grad_scale, block, sums)
    softmax(x, out)    log_softmax(x, out)    logsumexp(x, out)          # the last: ``out`` is (R,), the result dtype
    score(x, target, *, ignore_index, logit_scale, softcap, log_normalizer, prediction, confidence, entropy,
          nll, rank, brier)     # target (R,) or None; prediction, rank int64; nll, rank, brier None without a target

Normal form of the elementwise kernels
    Every array is ``(rows, cols)`` with any strides (0 where it is broadcast). ``x`` as above; ``target`` of bool, any
    integer or any of the floating dtypes; weights of the result dtype. A row is cut into segments of ``SEGMENT``
    columns, numbered row by row; ``run(lo, hi)`` works on segments. The losses go to ``loss``, ``(rows, cols)`` of the
    result dtype, or, where that is None, their sum over each segment goes to ``sums``, float64, one a segment.
    An element of sample weight 0 is masked.

::

    binary_cross_entropy(x, target, loss, sums, grad, *, pos_weight, sample_weight, label_smoothing, grad_scale)
    binary_log_loss(x, target, loss, sums, grad, *, sample_weight, label_smoothing, eps, log_eps, grad_scale)
    mse(x, target, loss, sums, grad, *, sample_weight, grad_scale)
    sigmoid(x, out)
    score_binary(x, target, *, threshold, nll, probability, prediction, brier)  # prediction int8; target None: only
                                                                                # probability and prediction are filled

Tallies
    Sums over blocks of ``block`` rows, for ``evaluate``: ``run(lo, hi)`` fills those of its blocks, float64. Masked
    rows count nowhere; ``w`` is the sample weight (1 without). Bin b holds confidences in (b/bins, (b+1)/bins], and bin
    0 also 0; a NaN confidence falls in no bin.

::

    tally(target, sample_weight, *, nll, prediction, confidence, entropy, rank, brier, ignore_index, top_k, bins,
          block, sums)
        # sums (blocks, 6 + len(top_k) + 4 * bins): rows, Σw, Σw·nll, Σw·entropy, Σw·brier, Σw·[prediction = target],
        # Σw·[rank < k] for each k of the int64 array top_k, then for each bin: rows, Σw, Σw·confidence, Σw·correct
    tally_binary(target, sample_weight, *, nll, probability, prediction, brier, bins, block, sums)
        # all (rows, labels), any strides; target of bool, integer or floating dtype, positive where > 0.5;
        # sums (blocks, labels, 8 + 4 * bins): elements, Σw, Σw·nll, Σw·brier, tp, fp, tn, fn (weighted),
        # then for each bin of probability: elements, Σw, Σw·probability, Σw·[positive]

Status
    Hard targets out of range: the row's number. A probability outside [0, 1]: the element's number, in C order of
    the normal form. The least one met in ``[lo, hi)`` is returned; the rest of the outputs is then unspecified.
"""

SEGMENT = 4096
"""Columns of an elementwise segment: one partial sum each, whatever the number of threads."""

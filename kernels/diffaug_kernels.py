"""Kernels of ``diffaug``: the sum that contrast needs, and one pass that applies all steps or their adjoint."""

from fastgan_engine.kernels.launch import jit, tl


@jit
def _diffaug_kept(
    image, row, column, shift_y_ptr, shift_x_ptr, cutout_y_ptr, cutout_x_ptr, height, width,
    CUT_Y: tl.constexpr, CUT_X: tl.constexpr,
):  # fmt: skip
    """Whether the output pixel (row, column) reads a pixel of the input and is not cut out."""
    kept = row >= 0
    if shift_y_ptr is not None:
        source_row = row + tl.load(shift_y_ptr + image).to(tl.int32)
        source_column = column + tl.load(shift_x_ptr + image).to(tl.int32)
        kept &= (source_row >= 0) & (source_row < height) & (source_column >= 0) & (source_column < width)
    if cutout_y_ptr is not None:
        top = tl.load(cutout_y_ptr + image).to(tl.int32) - CUT_Y // 2
        left = tl.load(cutout_x_ptr + image).to(tl.int32) - CUT_X // 2
        kept &= (row < top) | (row >= top + CUT_Y) | (column < left) | (column >= left + CUT_X)
    return kept


@jit
def _diffaug_reduce_kernel(
    x_ptr, partial_ptr, shift_y_ptr, shift_x_ptr, cutout_y_ptr, cutout_x_ptr,
    height, width, stride_b, stride_c, stride_h, stride_w, steps,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, CUT_Y: tl.constexpr, CUT_X: tl.constexpr,
    MASKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum of one chunk of one image; with MASKED only of the pixels that translation and cutout leave."""
    image, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = tl.arange(0, PADDED)
    total = tl.zeros([BLOCK, PADDED], dtype=tl.float32)
    for step in range(steps):
        pixel = (chunk * steps + step) * BLOCK + tl.arange(0, BLOCK)
        row, column = pixel // width, pixel % width
        mask = pixel < height * width
        if MASKED:
            mask &= _diffaug_kept(
                image, row, column, shift_y_ptr, shift_x_ptr, cutout_y_ptr, cutout_x_ptr, height, width, CUT_Y, CUT_X
            )
        offset = image * stride_b + row.to(tl.int64) * stride_h + column * stride_w
        tile_mask = mask[:, None] & (channel < CHANNELS)[None, :]
        tile = tl.load(x_ptr + offset[:, None] + channel[None, :] * stride_c, mask=tile_mask, other=0.0)
        total += tile.to(tl.float32)
    tl.store(partial_ptr + image * tl.num_programs(1) + chunk, tl.sum(tl.sum(total, axis=1), axis=0))


@jit
def _diffaug_apply_kernel(
    x_ptr, y_ptr, partial_ptr, brightness_ptr, saturation_ptr, contrast_ptr,
    shift_y_ptr, shift_x_ptr, cutout_y_ptr, cutout_x_ptr,
    height, width, stride_b, stride_c, stride_h, stride_w, y_stride_b, y_stride_c, y_stride_h, y_stride_w, chunks,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, CUT_Y: tl.constexpr, CUT_X: tl.constexpr,
    ADJOINT: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of pixels of one image: color, then translation and cutout; with ADJOINT the reverse."""
    image = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row, column = pixel // width, pixel % width
    valid = pixel < height * width
    source_row, source_column = row, column
    if shift_y_ptr is not None:
        direction = -1 if ADJOINT else 1
        source_row = row + direction * tl.load(shift_y_ptr + image).to(tl.int32)
        source_column = column + direction * tl.load(shift_x_ptr + image).to(tl.int32)
    inside = (source_row >= 0) & (source_row < height) & (source_column >= 0) & (source_column < width)
    # The pixel of the augmentation's output: what is read here by the adjoint, what is written otherwise.
    seen_row = source_row if ADJOINT else row
    seen_column = source_column if ADJOINT else column
    kept = (
        valid
        & inside
        & _diffaug_kept(
            image,
            seen_row,
            seen_column,
            shift_y_ptr,
            shift_x_ptr,
            cutout_y_ptr,
            cutout_x_ptr,
            height,
            width,
            CUT_Y,
            CUT_X,
        )
    )
    channel = tl.arange(0, PADDED)[None, :]
    x_offset = image * stride_b + source_row.to(tl.int64) * stride_h + source_column * stride_w
    x = tl.load(
        x_ptr + x_offset[:, None] + channel * stride_c, mask=kept[:, None] & (channel < CHANNELS), other=0.0
    ).to(tl.float32)
    if contrast_ptr is not None:
        index = tl.arange(0, CHUNKS)
        sums = tl.load(partial_ptr + image * chunks + index, mask=index < chunks, other=0.0)
        s, c = tl.load(saturation_ptr + image), tl.load(contrast_ptr + image)
        constant = (1.0 - c) * (tl.sum(sums) / (height.to(tl.float32) * width * CHANNELS))
        if not ADJOINT:
            constant += tl.load(brightness_ptr + image)
        x = x * (c * s) + (tl.sum(x, axis=1) * (c * (1.0 - s) / CHANNELS) + constant)[:, None]
        if not ADJOINT:
            x = tl.where(kept[:, None], x, 0.0)
    y_offset = image * y_stride_b + row.to(tl.int64) * y_stride_h + column * y_stride_w
    y_mask = valid[:, None] & (channel < CHANNELS)
    tl.store(y_ptr + y_offset[:, None] + channel * y_stride_c, x.to(y_ptr.dtype.element_ty), mask=y_mask)

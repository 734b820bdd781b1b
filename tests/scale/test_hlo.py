"""Reading XLA's text: checked on programs that the CPU's XLA compiles, and on lines as the TPU's writes them."""

import jax
import jax.numpy as jnp
import pytest

from minidalle.scale import hlo

TPU = """HloModule jit_f

%fused (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %inner = f32[8,128]{1,0} multiply(%p, %p), backend_config={"estimated_cycles":"7000"}
}

%all-reduce-scatter.1 (q: f32[8,128]) -> f32[2,128] {
  %q = f32[8,128]{1,0} parameter(0)
  %sum = f32[8,128]{1,0} all-reduce(%q), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %mine = f32[2,128]{1,0} dynamic-slice(%sum)
}

%condition (c: (s32[], f32[8,128])) -> pred[] {
  %c = (s32[]{:T(256)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %twelve = s32[]{:T(256)} constant(12)
  %turn = s32[]{:T(256)} get-tuple-element(%c), index=0
  ROOT %less = pred[]{:T(1024)} compare(%turn, %twelve), direction=LT
}

%unbounded (c: (s32[], f32[8,128])) -> pred[] {
  %c = (s32[]{:T(256)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %turn = s32[]{:T(256)} get-tuple-element(%c), index=0
  ROOT %less = pred[]{:T(1024)} compare(%turn, %turn), direction=LT
}

%body (b: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %b = (s32[]{:T(256)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%b), index=1
  %fusion = f32[8,128]{1,0:T(8,128)} fusion(%x), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"100"}
  %summed = bf16[8,128]{1,0:T(8,128)(2,1)} all-reduce(%fusion), replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, to_apply=%add
  ROOT %next = (s32[]{:T(256)}, f32[8,128]{1,0:T(8,128)}) tuple(%x, %fusion)
}

ENTRY %main (a: f32[8,128]) -> f32[2,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %start = (s32[]{:T(256)}, f32[8,128]{1,0:T(8,128)}) tuple(%a), backend_config={"estimated_cycles":"5"}
  %loop = (s32[]{:T(256)}, /*index=1*/f32[8,128]{1,0:T(8,128)}) while(%start), condition=%CONDITION, body=%body
  %gathered = (f32[8,128]{1,0}, f32[32,128]{1,0}) all-gather-start(%a), replica_groups=[2,4]<=[8], dimensions={0}
  %alone = f32[8,128]{1,0} all-reduce(%a), replica_groups={{0},{1}}, to_apply=%add
  %passed = f32[8,128]{1,0} collective-permute(%a), source_target_pairs={{0,1},{1,0}}
  %order = f32[8,128]{1,0} all-reduce(%a), replica_groups=mesh['axis_0'=2,'axis_1'=8], device_ids=([8,2]T(1,0)) {'axis_1'}
  ROOT %parts = f32[2,128]{1,0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.1
}
"""
ARRAY = 8 * 128 * 4


def test_a_loop_counts_as_often_as_it_turns_and_a_fusion_once():
    assert hlo.Program(TPU.replace("CONDITION", "condition")).cycles() == 5 + 12 * 100


def test_a_bound_that_is_an_argument_is_given():
    assert hlo.Program(TPU.replace("CONDITION", "unbounded"), turns=256).cycles() == 5 + 256 * 100


def test_communication_is_added_up_by_kind_and_group():
    found = {
        (each.kind, each.devices): each for each in hlo.Program(TPU.replace("CONDITION", "condition")).collectives()
    }
    assert set(found) == {
        ("all-reduce", 4),
        ("all-reduce", 8),
        ("all-gather", 4),
        ("reduce-scatter", 4),
        ("collective-permute", 2),
    }
    summed = found["all-reduce", 4]
    assert (summed.times, summed.bytes) == (12, 12 * ARRAY / 2)  # bfloat16
    assert summed.sent == pytest.approx(2 * summed.bytes * 3 / 4)
    gathered = found["all-gather", 4]
    assert (gathered.bytes, gathered.sent) == (4 * ARRAY, 3 * ARRAY)
    assert found["reduce-scatter", 4].sent == ARRAY * 3 / 4
    assert found["collective-permute", 2].sent == ARRAY


@pytest.mark.parametrize("length", [3, 11])
def test_a_scan_that_was_really_compiled_turns_as_often_as_it_is_long(length):
    def scanned(x):
        return jax.lax.scan(lambda x, _: (jnp.sin(x) @ x, None), x, length=length)[0]

    text = jax.jit(scanned).lower(jnp.ones((16, 16))).compile().as_text()
    assert length in [times for _, times in hlo.Program(text).run()]


def test_bytes_are_those_of_all_arrays_in_a_type():
    assert hlo.array_bytes("(bf16[2,3]{1,0:T(8,128)(2,1)}, s32[]{:T(256)}, /*index=2*/pred[5]{0})") == [12, 4, 5]

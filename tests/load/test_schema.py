"""The schema against the tables, against the code, and in itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from kvmscen.errors import ScenarioError
from kvmscen.load import load_text, names
from kvmscen.load.document import compose
from kvmscen.load.schema import _KEYWORDS, _test, fits, schema
from kvmscen.load.values import MATCHER_KEYS
from kvmscen.sent.arch import ARCHES
from kvmscen.sent.header import exits
from kvmscen.sent.header.actions import ACTIONS

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
SCHEMA: dict[str, Any] = json.loads((ROOT / "schema" / "scenario.schema.json").read_text())
DEFS = SCHEMA["definitions"]


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = DEFS[node["$ref"].rsplit("/", 1)[1]]
    return node


def nodes(node: Any = SCHEMA, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        yield path, node
        for key, child in node.items():
            yield from nodes(child, f"{path}/{key}")
    elif isinstance(node, list):
        for n, child in enumerate(node):
            yield from nodes(child, f"{path}/{n}")


def test_generated_parts_are_what_the_tables_say() -> None:
    done = subprocess.run(
        [sys.executable, "schema/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_check_sees_a_difference(tmp_path: Path) -> None:
    twin = tmp_path / "schema"
    twin.mkdir()
    (tmp_path / "kvmscen").symlink_to(ROOT / "kvmscen")
    (twin / "generate.py").write_text((ROOT / "schema" / "generate.py").read_text())
    text = (ROOT / "schema" / "scenario.schema.json").read_text()
    (twin / "scenario.schema.json").write_text(text.replace("KVM_CAP_HLT", "KVM_CAP_HALT"))
    done = subprocess.run(
        [sys.executable, str(twin / "generate.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "run python schema/generate.py" in done.stderr


def test_is_a_schema() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"


def test_forbids_unknown_keys_everywhere() -> None:
    for path, node in nodes():
        if "properties" in node and isinstance(node.get("properties"), dict) and "type" in node:
            assert node.get("additionalProperties") is False, path
    assert "oneOf" not in json.dumps(SCHEMA)


def test_explains_each_key() -> None:
    for path, node in nodes():
        if path.endswith("/properties") and not path.endswith("/properties/properties"):
            for key, child in node.items():
                assert resolved(child).get("description"), f"{path}/{key}"


def test_ref_has_no_siblings() -> None:
    for path, node in nodes():
        if isinstance(node.get("$ref"), str):
            assert set(node) == {"$ref"}, path


# --- schema and code ------------------------------------------------------------------------------

# One value that is right for each key of each map that the schema describes, and where that map
# stands.
X86 = "arch: x86_64\nasm: hlt\nexpect: [mmio]\n"
# What x86_64 has not, with the arm64 scenario that it stands in.
ARM = "arch: arm64\nasm: nop\n"
ARM_ONLY = {
    "undecoded": ARM + "expect: [mmio]\nundecoded: emulate\n",
    "mmu": ARM
    + "expect: [mmio]\nmmu: identity\nvcpus: [{mmu: identity}]\ncases: {one: {mmu: null}}\n",
    "emulate": ARM + "expect: [{arm_nisv: {}, then: [emulate, {emulate: {}}]}]\n",
}
TOP = {
    "summary": "text",
    "arch": "x86_64",
    "tags": "[a]",
    "memslots": "[{slot: 0, gpa: 0, size: 0x1000}]",
    "sections": "{.data: 0x1000}",
    "asm": "hlt",
    "macros": "{access: hlt}",
    "elf": "test_schema.py",
    "vcpus": "1",
    "mode": "real",
    "features": "[]",
    "regs": "{rax: 1}",
    "enable": "[KVM_CAP_HLT]",
    "setup": "[{delete_memslot: 1}]",
    "expect": "[hlt]",
    "final": "{regs: {rax: 1}}",
    "ignore": "[mmio]",
    "requires": "{kvm: svm}",
    "when": "[{kvm: svm, reason: why, expect: [mmio]}]",
    "measure": "{store: {mmio: {is_write: true}}}",
    "limits": "{timeout: 1}",
    "assembler": "gnu",
    "cases": "{a: {}}",
}
MAPS = {
    "memslot": (
        "memslots: [{{slot: 0, gpa: 0, size: 0x1000, {}}}]",
        {"flags": "[KVM_MEM_READONLY]", "errno": "EINVAL"},
    ),
    "section": (
        "sections: {{.data: {{{}}}}}",
        {"at": "0", "after": ".text", "align": "16", "load": "0"},
    ),
    "vcpu": ("vcpus: [{{{}}}]", {"mode": "real", "features": "[]", "regs": "{rax: 1}"}),
    "action": (
        "setup: [{{{}}}]",
        {
            "set_regs": "{rax: 1}",
            "write_memory": "{0x0: 1}",
            "set_memslot": "{slot: 1, gpa: 0, size: 0x1000, flags: KVM_MEM_READONLY}",
            "delete_memslot": "{slot: 1}",
            "enable": "{cap: KVM_CAP_HLT, args: [1], errno: EINVAL}",
            "register_coalesced_mmio": "{addr: a, size: 8, pio: true}",
            "unregister_coalesced_mmio": "{addr: 0x10, size: 1}",
            "set_guest_debug": "{control: [KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_USE_HW_BP], debugreg: "
            "[a]}",
            "ioeventfd": "{addr: a, len: 8, datamatch: 1, flags: KVM_IOEVENTFD_FLAG_DEASSIGN}",
            "vcpu": "0, delete_memslot: 1",
            "errno": "EINVAL, delete_memslot: 1",
        },
    ),
    "final": ("final: {{{}}}", {"regs": "{rax: 1}", "memory": "{a: 1}"}),
    "requires": (
        "requires: {{{}}}",
        {
            "capabilities": "KVM_CAP_HLT",
            "kernel": '{from: "6.1", before: "7.0"}',
            "kvm": "[svm]",
            "cpu": "avx",
            "host": "kvm",
        },
    ),
    "limits": ("limits: {{{}}}", {"timeout": "0.5", "exits": "5"}),
    "memory_value": (
        "final: {{memory: {{a: {{{}}}}}}}",
        {
            "u8": "1",
            "u16": "[1]",
            "u32": "symbol",
            "u64": "{min: 1}",
            "hex": '"00"',
            "text": "hi",
            "mask": "1, value: 1",
            "value": "1, mask: 1",
            "in": "[1]",
            "min": "1",
            "max": "1",
        },
    ),
    "step": (
        "expect: [{{{}}}]",
        {
            "error": "{ioctl: KVM_RUN, errno: EFAULT, memory_fault: {gpa: 0, flags: private, size: "
            "1}}",
            "timeout": "0.5",
            "steps": "[hlt]",
            "reply": "1, mmio: {}",
            "then": "[], hlt: {}",
            "regs": "{rax: 1}, hlt: {}",
            "memory": "{a: 1}, hlt: {}",
            "repeat": "{min: 0, max: 2}, hlt: {}",
            "vcpu": "0, hlt: {}",
        },
    ),
    "measured": (
        "measure: {{one: {{mmio: {{}}}}, two: {{{}}}}}",
        {
            "from": "hlt, to: mmio",
            "to": "{mmio: {}}, from: {io: {port: 1}}",
            "per": "10, from: hlt, to: hlt",
            "less": "one, hlt: {}",
            "samples": "100, hlt: {}",
            "warmup": "0, hlt: {}",
            "reply": "1, mmio: {}",
        },
    ),
    "value": (
        "expect: [{{mmio: {{phys_addr: {{{}}}}}, repeat: 2}}]",
        {
            "mask": "1, value: 1",
            "value": "1, mask: 1",
            "in": "[1]",
            "min": "1",
            "max": "1",
            "from": "a, step: 8",
            "step": "8, from: a",
        },
    ),
}


def with_line(line: str) -> str:
    key = line.split(":")[0]
    kept = [held for held in X86.splitlines() if held.split(":")[0] != key]
    return "\n".join([*kept, line]) + "\n"


def test_top_level_keys_are_read() -> None:
    assert set(SCHEMA["properties"]) == {*TOP, "undecoded", "mmu"}
    assert set(DEFS["case"]["properties"]) == {*TOP, "undecoded", "mmu"} - {"cases"}
    for text in ARM_ONLY.values():
        load_text(text, "a.yaml")
    for key, value in TOP.items():
        text = with_line(f"{key}: {value}")
        # The program is one or the other; a file is looked for beside the scenario.
        load_text(text.replace("asm: hlt\n", "") if key == "elf" else text, str(HERE / "a.yaml"))
        if key != "cases":
            load_text(X86 + f"cases: {{one: {{{key}: {value}}}}}\n", str(HERE / "a.yaml"))


@pytest.mark.parametrize("name", MAPS)
def test_keys_are_read(name: str) -> None:
    form, values = MAPS[name]
    known = set(DEFS[name]["properties"]) - {row.name for row in exits.EXITS}
    if name == "memslot":
        known -= {"slot", "gpa", "size"}
    if name == "action":
        # Those that fill a struct are rows of a table: tests/sent/kvm/test_actions.py writes each.
        known -= {row.name for row in ACTIONS if row.members} - set(values)
    if name == "memory_value":
        known -= {"from", "step"}
    assert known - set(ARM_ONLY) == set(values)
    for key, value in values.items():
        load_text(with_line(form.format(f"{key}: {value}")), "a.yaml")


def test_no_key_is_read_that_the_schema_does_not_have() -> None:
    assert set(names.ACTIONS) < set(DEFS["action"]["properties"])
    assert set(names.BESIDE) < set(DEFS["step"]["properties"])
    assert set(MATCHER_KEYS) == set(DEFS["value"]["properties"])
    assert not set(names.LATER_TOP) & set(SCHEMA["properties"])
    assert not set(names.LATER_STEP) & set(DEFS["step"]["properties"])
    assert not set(names.LATER_ACTIONS) & set(DEFS["action"]["properties"])
    for key in names.LATER_TOP:
        with pytest.raises(ScenarioError, match="not yet"):
            load_text(X86 + f"{key}: 1\n", "a.yaml")


@pytest.mark.parametrize("arch", ARCHES)
def test_every_exit_and_member(arch: str) -> None:
    for row in names.offered(arch):
        load_text(f"arch: {arch}\nasm: nop\nexpect: [{row.name}, {{{row.name}: {{}}}}]\n", "a.yaml")
        ignoring = f"arch: {arch}\nasm: nop\nexpect: [mmio]\nignore: [{row.name}]\n"
        if row.ends or row.name == "arm_nisv":
            with pytest.raises(
                ScenarioError, match=f"`{row.name}` (cannot be ignored|would repeat for ever)"
            ):
                load_text(ignoring, "a.yaml")
        else:
            load_text(ignoring, "a.yaml")
        for name, field in names.members(row.name, arch).items():
            value = "[]" if name == "accesses" else "[1]" if field.length > 1 else "1"
            words = names.numbers_of(row.name, name)
            for word in (value, *words):
                text = f"arch: {arch}\nasm: nop\nexpect: [{{{row.name}: {{{name}: {word}}}}}]\n"
                if row.name == "x86_rdmsr" and name == "data":
                    continue
                step = (load_text(text, "a.yaml").cases[0].expect or ())[0]
                if word in words:
                    assert step.fields[name].offset == words[word]  # type: ignore[union-attr]
        for member in row.reply:
            load_text(
                f"arch: {arch}\nasm: nop\nexpect: [{{{row.name}: {{}}, reply: {{{member}: 1}}}}]\n",
                "a.yaml",
            )


def test_every_register() -> None:
    for arch, module in ARCHES.items():
        lines = "".join(f"  {name}: 1\n" for name in module.REGISTERS)
        case = load_text(
            f"arch: {arch}\nasm: nop\nexpect: [mmio]\nregs:\n{lines}final:\n  regs:\n"
            + lines.replace("  ", "    "),
            "a",
        )
        assert set(case.cases[0].vcpus[0].regs) == set(module.REGISTERS)
        final = case.cases[0].final
        assert final is not None
        assert set(final.regs) == set(module.REGISTERS)


def test_full_names_are_the_headers() -> None:
    assert names.numbers_of("io", "direction")["KVM_EXIT_IO_OUT"] == 1
    assert names.numbers_of("system_event", "type")["KVM_SYSTEM_EVENT_CRASH"] == 3
    assert names.numbers_of("internal_error", "suberror")["KVM_INTERNAL_ERROR_DELIVERY_EV"] == 3
    assert names.numbers_of("x86_rdmsr", "reason")["KVM_MSR_EXIT_REASON_FILTER"] == 4
    assert names.numbers_of("memory_fault", "flags")["KVM_MEMORY_EXIT_FLAG_PRIVATE"] == 8


# --- the quick look and jsonschema ----------------------------------------------------------------


def test_quick_look_agrees_on_the_corpus() -> None:
    validator = Draft7Validator(schema())
    seen = {True: 0, False: 0}
    for path in [
        *(ROOT / "tests" / "bad").glob("*.yaml"),
        ROOT / "tests" / "load" / "founding.yaml",
    ]:
        root = compose(path.read_bytes().decode("utf-8", "replace"), path.name).root
        if isinstance(root, dict):
            assert fits()(root) == validator.is_valid(root), path.name
            seen[fits()(root)] += 1
    assert min(seen.values()) > 10


def test_quick_look_knows_each_keyword() -> None:
    with pytest.raises(KeyError):
        _test({"type": "object", "propertyNames": {}}, {})
    used = {key for path, node in nodes() if not path.endswith("/properties") for key in node}
    assert set(_KEYWORDS) <= used


def test_jsonschema_is_not_imported_for_a_right_file() -> None:
    code = (
        "import sys, kvmscen.load as l; l.load('tests/load/founding.yaml'); "
        "sys.exit('jsonschema' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0

"""Third-party code in the object and in the command: crates and Rust's standard library.

The crates are those that cargo resolves for the build of one package, without build scripts, macros and tests. The
licence texts come from each crate's folder, the hashes from Cargo.lock.
"""

import dataclasses
import hashlib
import html.parser
import json
import pathlib
import re
import uuid

import cache
import release_cargo

# The Cargo packages of the object and the command.
OBJECT = "psmdb-aws-iam"
COMMAND = "psmdb-aws-iam-command"
TARGET = "x86_64-unknown-linux-gnu"
# Dependencies that cargo compiles and rustc does not link, by package: bson uses serde_bytes only
# with its feature serde.
NOT_LINKED = {OBJECT: {"serde_bytes"}}
# Names of licence, notice and copyright files.
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)([-_. ].*)?", re.IGNORECASE)
# An entry of Cargo.lock with a hash; not all supported Pythons have tomllib.
LOCKED = re.compile(
    r'^name = "([^"]+)"\nversion = "([^"]+)"\nsource = "[^"]+"\nchecksum = "([0-9a-f]{64})"$', re.MULTILINE
)
# Licence texts for crates without one, named after the crate.
ADDED_TEXTS = release_cargo.ROOT / "packaging" / "licences"
SEPARATOR = "=" * 100


@dataclasses.dataclass(frozen=True)
class Text:
    """A licence text without trailing spaces; equal texts are printed once."""

    name: str
    text: str

    @staticmethod
    def of(name, text):
        lines = [line.rstrip() for line in text.replace("\r\n", "\n").splitlines()]
        return Text(name, "\n".join(lines).strip("\n"))


@dataclasses.dataclass
class Crate:
    name: str
    version: str
    licence: str
    description: str
    # As in Cargo.lock; None for a crate of this repository.
    sha256: str | None
    # Keys of its dependencies.
    uses: set
    texts: list

    @property
    def purl(self):
        return f"pkg:cargo/{self.name}@{self.version}"


@dataclasses.dataclass
class StandardLibrary:
    """Rust's standard library, which is linked into every binary."""

    version: str
    # (name, version, licence, texts) of its crates.
    crates: list
    # Names of its crates that Rust's notices do not mention.
    unnamed: list
    texts: list


def licence_texts(folder):
    texts = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".rs" and LICENCE_FILE.fullmatch(path.name):
            texts.append(Text.of(str(path.relative_to(folder)), path.read_text(encoding="utf-8", errors="replace")))
    return texts


def crates(package):
    """The crates built into PACKAGE, by (name, version); the first is the package itself."""
    tree = ["cargo", "tree", "--locked", "--package", package, "--target", TARGET, "--edges", "normal,no-proc-macro"]
    lines = release_cargo.output_of([*tree, "--prefix", "depth", "--no-dedupe", "--format", " {p}"]).splitlines()
    metadata = json.loads(
        release_cargo.output_of(["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET])
    )
    known = {(entry["name"], entry["version"]): entry for entry in metadata["packages"]}
    lock = (release_cargo.ROOT / "Cargo.lock").read_text(encoding="utf-8")
    checksums = {(name, version): checksum for name, version, checksum in LOCKED.findall(lock)}

    added = {path.stem: path for path in ADDED_TEXTS.glob("*.txt")}
    found = {}
    above = []
    for line in lines:
        depth, name, version = line.split()[:3]
        key = (name, version.removeprefix("v"))
        if key not in found:
            described = known[key]
            folder = pathlib.Path(described["manifest_path"]).parent
            foreign = described["source"] is not None
            texts = licence_texts(folder) if foreign else []
            if name in added:
                if texts:
                    raise cache.ToolError(f"{name} now has a licence text: remove {added[name]}")
                texts = [Text.of("LICENSE", added[name].read_text(encoding="utf-8"))]
            # Old manifests use a slash.
            licence = (described["license"] or "").replace("/", " OR ")
            if not licence or foreign and not (texts and key in checksums):
                raise cache.ToolError(
                    f"{name} {key[1]} lacks a licence, a licence text or a hash in Cargo.lock, and packaged code needs "
                    f"all three: look into {folder}, and add a missing text as {ADDED_TEXTS / name}.txt"
                )
            found[key] = Crate(*key, licence, described["description"] or "", checksums.get(key), set(), texts)
        del above[int(depth) :]
        if above:
            found[above[-1]].uses.add(key)
        above.append(key)
    left_out = NOT_LINKED.get(package, set())
    for crate in found.values():
        crate.uses = {key for key in crate.uses if key[0] not in left_out}
    return {key: crate for key, crate in found.items() if key[0] not in left_out}


def need_added_texts_of(found):
    """Checks that every text in ADDED_TEXTS belongs to one of the crates."""
    names = {crate.name for crate in found.values()}
    for path in sorted(ADDED_TEXTS.glob("*.txt")):
        if path.stem not in names:
            raise cache.ToolError(f"{path} belongs to no packaged crate: remove it")


class NoticesOfRust(html.parser.HTMLParser):
    """Parses Rust's page of notices: a heading for each crate, its licence, and the texts."""

    def __init__(self):
        super().__init__()
        self.crates = []
        self.inside = None
        self.read = ""
        self.label = ""

    def handle_starttag(self, tag, attributes):
        if tag in ("h3", "b", "code", "pre"):
            self.inside, self.read = tag, ""

    def handle_data(self, data):
        if self.inside:
            self.read += data
        elif self.label == "License:" and data.strip():
            if self.crates:
                self.crates[-1]["licence"] = data.strip()
            self.label = ""

    def handle_endtag(self, tag):
        if tag != self.inside:
            return
        self.inside = None
        if tag == "h3":
            name, version = re.fullmatch(r"\W*([\w-]+?)-(\d.*)", self.read.strip()).groups()
            self.crates.append({"name": name, "version": version, "licence": "", "texts": []})
        elif tag in ("b", "code"):
            self.label = self.read.strip()
        elif tag == "pre" and self.crates:
            self.crates[-1]["texts"].append(Text.of(self.label, self.read))


def standard_library():
    version = release_cargo.output_of(["rustc", "--version"]).split()[1]
    sysroot = pathlib.Path(release_cargo.output_of(["rustc", "--print", "sysroot"]).strip())
    documents = sysroot / "share/doc/rust"
    page = documents / "COPYRIGHT-library.html"
    licences = sorted((documents / "licenses").glob("*.txt"))
    if not page.is_file() or not licences:
        raise cache.ToolError(
            f"{documents} lacks COPYRIGHT-library.html or licenses: packages contain the notices of Rust's standard "
            "library, so build them with a Rust installed by rustup"
        )
    reader = NoticesOfRust()
    reader.feed(page.read_text(encoding="utf-8"))
    # The page lists the crates of all platforms; those of this platform are in the library folder.
    built = {path.name[3:].rsplit("-", 1)[0] for path in (sysroot / "lib/rustlib" / TARGET / "lib").glob("lib*.rlib")}
    own = {"alloc", "compiler_builtins", "core", "panic_abort", "panic_unwind", "proc_macro", "profiler_builtins"}
    own |= {"std", "std_detect", "sysroot", "test", "unwind"} | {name for name in built if "workspace" in name}
    # Only for macros and tests.
    own |= {"getopts", "rustc_literal_escaper"}
    here = []
    for crate in reader.crates:
        if crate["name"].replace("-", "_") in built - own:
            licence = crate["licence"].replace("/", " OR ")
            here.append((crate["name"], crate["version"], licence, crate["texts"]))
    named = {name.replace("-", "_") for name, *_ in here}
    texts = [Text.of(path.name, path.read_text(encoding="utf-8")) for path in licences]
    wanted = ("Apache-2.0.txt", "MIT.txt", "Unicode-3.0.txt")
    return StandardLibrary(version, here, sorted(built - own - named), [text for text in texts if text.name in wanted])


def notices(found, library):
    """The text of THIRD-PARTY-NOTICES."""
    numbers = {}

    def number(text):
        return numbers.setdefault(text.text, len(numbers) + 1)

    def entry(title, texts):
        return [title, *(f"    {text.name}: text {number(text)}" for text in texts), ""]

    lines = [
        f"The object and the command of {OBJECT} contain code of the following projects, each under the licence named",
        "with it. The licence texts follow at the end; identical texts are printed once.",
        "",
    ]
    for crate in sorted(
        (crate for crate in found.values() if crate.texts), key=lambda crate: (crate.name, crate.version)
    ):
        lines += entry(f"{crate.name} {crate.version}: {crate.licence}", crate.texts)
    title = f"Rust's standard library {library.version}: MIT OR Apache-2.0; its tables of Unicode: Unicode-3.0"
    lines += entry(title, library.texts)
    for name, version, licence, texts in library.crates:
        lines += entry(f"{name} {version}, in Rust's standard library: {licence}", texts)
    if library.unnamed:
        lines += [
            "Rust's standard library also contains these crates, which have no separate notices:",
            "    " + ", ".join(library.unnamed),
            "",
        ]
    for text, count in numbers.items():
        lines += [SEPARATOR, f"Text {count}", SEPARATOR, "", text, ""]
    return "\n".join(lines)


def licence_field(found):
    """The licences of all packaged code as one SPDX expression; of alternatives, Apache-2.0, else MIT."""
    names = set()
    for crate in found.values():
        for part in crate.licence.split(" AND "):
            choices = [choice.strip() for choice in part.strip("()").split(" OR ")]
            names.add(next((choice for choice in ("Apache-2.0", "MIT") if choice in choices), choices[0]))
    return " AND ".join(sorted(names))


def bill_of_materials(found, library, files, moment):
    """A CycloneDX document of what crates() has FOUND in a package, whose build made FILES: (installed path, sha256).

    MOMENT is the document's time, as 2026-01-31T00:00:00Z.
    """
    main = next(iter(found.values()))

    def component(crate):
        # A crate of this repository has none.
        hashes = [{"alg": "SHA-256", "content": crate.sha256}] if crate.sha256 else []
        return {
            "type": "library",
            "bom-ref": crate.purl,
            "name": crate.name,
            "version": crate.version,
            "description": " ".join(crate.description.split()),
            "scope": "required",
            **({"hashes": hashes} if hashes else {}),
            "licenses": [{"expression": crate.licence}],
            "purl": crate.purl,
        }

    def part_of_rust(name, version, licence):
        purl = f"pkg:cargo/{name}@{version}"
        described = {"type": "library", "bom-ref": f"rust-{library.version}/{name}", "name": name, "version": version}
        return {**described, "scope": "required", "licenses": [{"expression": licence}], "purl": purl}

    rust = {
        "type": "library",
        "bom-ref": f"rust-{library.version}",
        "name": "rust-std",
        "version": library.version,
        "description": "Rust's standard library",
        "scope": "required",
        "licenses": [{"expression": "(MIT OR Apache-2.0) AND Unicode-3.0"}],
        "components": [part_of_rust(*described) for *described, _ in library.crates],
    }
    others = sorted((crate for crate in found.values() if crate is not main), key=lambda crate: crate.purl)
    edges = [{"ref": crate.purl, "dependsOn": sorted(found[key].purl for key in crate.uses)} for crate in others]
    uses = sorted([found[key].purl for key in main.uses] + [rust["bom-ref"]])
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": moment,
            "component": {
                "type": "application",
                "bom-ref": main.purl,
                "name": main.name,
                "version": main.version,
                "description": main.description,
                "licenses": [{"expression": main.licence}],
                "purl": f"pkg:generic/{main.name}@{main.version}",
                "components": [
                    {
                        "type": "file",
                        "bom-ref": path,
                        "name": path,
                        "hashes": [{"alg": "SHA-256", "content": sha256}],
                    }
                    for path, sha256 in files
                ],
            },
        },
        "components": [*(component(crate) for crate in others), rust],
        "dependencies": [
            {"ref": main.purl, "dependsOn": uses},
            *edges,
            {"ref": rust["bom-ref"], "dependsOn": []},
        ],
    }
    # The serial number is derived from the content: reproducible.
    content = json.dumps(document, sort_keys=True).encode()
    number = uuid.UUID(bytes=hashlib.sha256(content).digest()[:16], version=4)
    document = {"bomFormat": document.pop("bomFormat"), "serialNumber": f"urn:uuid:{number}", **document}
    return json.dumps(document, indent=2) + "\n"

//! A server's file, read without running it: its exports, and its memory as the loader would lay it
//! out.
//!
//! Everything comes from the program headers and the dynamic section, as in the loader itself, so
//! section headers are not needed. Every offset and size in the file is checked.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use object::LittleEndian;
use object::elf;
use object::pod;
use object::read::elf::{Dyn, FileHeader, ProgramHeader, Rela, Sym};

type Header = elf::FileHeader64<LittleEndian>;
type Segment = elf::ProgramHeader64<LittleEndian>;
type Symbol = elf::Sym64<LittleEndian>;
type Relocation = elf::Rela64<LittleEndian>;

const ENDIAN: LittleEndian = LittleEndian;
const WORD: u64 = 8;

/// Why a file cannot be checked.
#[derive(Debug)]
pub enum Error {
    /// The file cannot be read.
    Unreadable(String),
    /// The file can be read, and the plugin cannot work in it, whatever it exports.
    Unsupported(String),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

fn unsupported<T>(reason: impl Into<String>) -> Result<T, Error> {
    Err(Error::Unsupported(reason.into()))
}

fn damaged(what: &str) -> Error {
    Error::Unsupported(format!("the file is damaged: {what}; install it again"))
}

/// Which of the two servers it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// The database.
    Mongod,
    /// The router of a sharded cluster.
    Mongos,
}

impl ServerKind {
    /// The name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mongod => "mongod",
            Self::Mongos => "mongos",
        }
    }
}

/// Functions and tables that only one of the two servers has.
const KIND_SYMBOLS: [(&str, ServerKind); 3] = [
    // 5.0 and newer
    ("_ZN5mongo11mongod_mainEiPPc", ServerKind::Mongod),
    // By analogy: not seen in a real file. Where it is missing, the file name decides.
    ("_ZN5mongo11mongos_mainEiPPc", ServerKind::Mongos),
    // 4.4: the storage engine
    ("_ZTVN5mongo18WiredTigerKVEngineE", ServerKind::Mongod),
];

/// The location of an exported symbol, in the file's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its address. Never 0.
    pub address: u64,
    /// Its size; 0 if unknown.
    pub size: u64,
}

/// A program's file.
#[derive(Debug)]
pub struct ServerFile {
    name: String,
    source: Source,
    segments: Vec<Loaded>,
    exports: HashMap<Box<[u8]>, Export>,
    relocated: HashMap<u64, u64>,
}

impl ServerFile {
    /// Reads a program.
    ///
    /// # Errors
    /// When the file cannot be read, or is not a program that loads preloaded objects.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, expect_loader)
    }

    /// Reads a shared object, which needs no loader.
    ///
    /// # Errors
    /// When the file cannot be read, or is not an object for this machine.
    pub fn open_library(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, |_, _| Ok(()))
    }

    fn open_with(
        path: &Path,
        expect_loader: impl FnOnce(&Source, &[Segment]) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let source = Source::open(path)?;
        let start = source.read(0, source.length.min(size_of::<Header>() as u64))?;
        let header = program_header(&start)?;
        let segments = segments_of(&source, header)?;
        expect_whole(&source, header, &segments)?;
        expect_loader(&source, &segments)?;

        let mut file = Self {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            segments: segments.iter().filter_map(Loaded::from_segment).collect(),
            source,
            exports: HashMap::new(),
            relocated: HashMap::new(),
        };
        if let Some(segment) = segments.iter().find(|segment| segment.p_type(ENDIAN) == elf::PT_DYNAMIC) {
            file.read_dynamic(segment)?;
        }
        Ok(file)
    }

    /// A symbol that the dynamic linker would find.
    pub fn export(&self, name: &[u8]) -> Option<Export> {
        self.exports.get(name).copied()
    }

    /// The word at an address after relocation, with the program at its own addresses. A word that
    /// is relocated against a symbol of a library is 0. `None` when nothing is loaded there.
    pub fn word(&self, address: u64) -> Option<u64> {
        if let Some(&word) = self.relocated.get(&address) {
            return Some(word);
        }
        // A relocation of DT_RELR adds the base address, here 0, to the word in the file.
        let end = address.checked_add(WORD)?;
        let segment = self.segments.iter().find(|segment| segment.start <= address && end <= segment.end)?;
        let mut word = [0; WORD as usize];
        // Beyond the part of a segment that is in the file, memory is zero.
        let available = segment.file_size.saturating_sub(address - segment.start).min(WORD);
        if available > 0 {
            let offset = segment.offset + (address - segment.start);
            word[..available as usize].copy_from_slice(&self.source.read(offset, available).ok()?);
        }
        Some(u64::from_le_bytes(word))
    }

    /// Which server it is, by its exports or else its file name. Only valid for a server.
    pub fn kind(&self) -> Option<ServerKind> {
        let found = KIND_SYMBOLS.iter().find(|(symbol, _)| self.export(symbol.as_bytes()).is_some());
        let by_name =
            || [ServerKind::Mongos, ServerKind::Mongod].into_iter().find(|kind| self.name.contains(kind.name()));
        found.map(|&(_, kind)| kind).or_else(by_name)
    }

    /// The server's version, such as `6.0.5` or `6.0.5-4`. Only valid for a server.
    pub fn server_version(&self) -> Option<String> {
        self.segments.iter().find_map(|segment| {
            let mut at = segment.offset;
            let end = segment.offset + segment.file_size;
            while at < end {
                let chunk = self.source.read(at, (end - at).min(CHUNK_SIZE)).ok()?;
                if let Some(version) = first_version(&chunk) {
                    return Some(version);
                }
                // Chunks overlap, for a version on the border.
                at = if at + CHUNK_SIZE < end { at + CHUNK_SIZE - MAX_VERSION_LENGTH } else { end };
            }
            None
        })
    }

    fn read_dynamic(&mut self, segment: &Segment) -> Result<(), Error> {
        let bytes = self.source.read(segment.p_offset(ENDIAN), segment.p_filesz(ENDIAN))?;
        let entries: &[elf::Dyn64<LittleEndian>] = items_of(&bytes);
        let value = |tag| {
            let used = || entries.iter().take_while(|entry| entry.d_tag(ENDIAN) != elf::DT_NULL);
            used().find(|entry| entry.d_tag(ENDIAN) == tag).map(|entry| entry.d_val(ENDIAN))
        };
        // As in the loader, tables are found by addresses, not offsets.
        let table = |start, size| match (value(start), value(size)) {
            (Some(address), Some(size)) => self.loaded(address, size),
            _ => Ok(Vec::new()),
        };

        let count = match (value(elf::DT_GNU_HASH), value(elf::DT_HASH)) {
            (Some(address), _) => self.count_by_gnu_hash(address)?,
            // There are as many chains as symbols.
            (None, Some(address)) => u64::from(u32_at(&self.loaded(address, 8)?, 4)),
            (None, None) => 0,
        };
        let symbols = match value(elf::DT_SYMTAB) {
            Some(address) => self.loaded(address, count.saturating_mul(size_of::<Symbol>() as u64))?,
            None => Vec::new(),
        };
        let names = table(elf::DT_STRTAB, elf::DT_STRSZ)?;
        let relocations = [table(elf::DT_RELA, elf::DT_RELASZ)?, table(elf::DT_JMPREL, elf::DT_PLTRELSZ)?];

        let symbols: &[Symbol] = items_of(&symbols);
        self.exports = exports_of(symbols, &names);
        self.relocated =
            relocations.iter().flat_map(|table| items_of(table)).filter_map(|r| relocate(r, symbols)).collect();
        Ok(())
    }

    /// The bytes that are loaded at an address; an error when they are not in the file.
    fn loaded(&self, address: u64, size: u64) -> Result<Vec<u8>, Error> {
        let outside = || damaged("a table is outside of what is loaded");
        let segment = self.segments.iter().find(|segment| segment.holds(address)).ok_or_else(outside)?;
        let into = address - segment.start;
        if size > segment.file_size - into {
            return Err(outside());
        }
        self.source.read(segment.offset + into, size)
    }

    /// The number of symbols. The file does not state it, but the last exported symbol ends the
    /// last chain of the hash table.
    fn count_by_gnu_hash(&self, table: u64) -> Result<u64, Error> {
        const HEADER: u64 = 16;
        let header = self.loaded(table, HEADER)?;
        let [buckets, first, filters] = [0, 4, 8].map(|at| u64::from(u32_at(&header, at)));
        // A sum that overflows is also beyond the end of the file.
        let heads_start = table.saturating_add(HEADER + filters * WORD);
        let heads = self.loaded(heads_start, buckets * 4)?;
        let Some(last) = words_of(&heads).max().filter(|&last| last >= first) else {
            return Ok(first);
        };
        let chain_start = heads_start.saturating_add((buckets + last - first) * 4);
        let chain = self.loaded(chain_start, self.rest(chain_start).min(MAX_CHAIN_SIZE))?;
        // The last hash of a chain is odd.
        match words_of(&chain).position(|hash| hash & 1 == 1) {
            Some(length) => Ok(last + 1 + length as u64),
            None => Err(damaged("its table of symbols has no end")),
        }
    }

    /// The number of bytes of the file from an address on.
    fn rest(&self, address: u64) -> u64 {
        let segment = self.segments.iter().find(|segment| segment.holds(address));
        segment.map_or(0, |segment| segment.start + segment.file_size - address)
    }
}

/// In bytes. The symbols of one hash take less.
const MAX_CHAIN_SIZE: u64 = 1 << 16;
/// In bytes. The largest table seen in a server has 19 million.
const MAX_TABLE_SIZE: u64 = 1 << 30;

/// A segment that the loader would map.
#[derive(Clone, Copy, Debug)]
struct Loaded {
    start: u64,
    end: u64,
    offset: u64,
    file_size: u64,
}

impl Loaded {
    fn from_segment(segment: &Segment) -> Option<Self> {
        let start = segment.p_vaddr(ENDIAN);
        let end = start.checked_add(segment.p_memsz(ENDIAN))?;
        let file_size = segment.p_filesz(ENDIAN).min(end - start);
        let loaded = segment.p_type(ENDIAN) == elf::PT_LOAD;
        loaded.then_some(Self { start, end, offset: segment.p_offset(ENDIAN), file_size })
    }

    /// Whether an address is in the part that is in the file.
    fn holds(&self, address: u64) -> bool {
        (self.start..self.start + self.file_size).contains(&address)
    }
}

/// The file, read in parts: servers have hundreds of megabytes, gigabytes with debug information.
#[derive(Debug)]
struct Source {
    file: File,
    length: u64,
}

impl Source {
    fn open(path: &Path) -> Result<Self, Error> {
        let kind = fs::metadata(path)?;
        if kind.is_dir() {
            return Err(Error::Unreadable("it is a directory; give the server's file".to_owned()));
        }
        // Opening a pipe could block.
        if !kind.is_file() {
            return Err(Error::Unreadable("it is not a regular file".to_owned()));
        }
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }

    fn read(&self, offset: u64, size: u64) -> Result<Vec<u8>, Error> {
        if offset.checked_add(size).is_none_or(|end| end > self.length) {
            return Err(damaged("a part of it is beyond its end"));
        }
        // A sparse file can have more bytes than memory.
        if size > MAX_TABLE_SIZE {
            return Err(damaged("a part of it is too large"));
        }
        let mut bytes = vec![0; size as usize];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

fn program_header(start: &[u8]) -> Result<&Header, Error> {
    if start.is_empty() {
        return unsupported("the file is empty");
    }
    if start.starts_with(b"#!") {
        return unsupported("it is a script, not an x86_64 ELF program: give the mongod or mongos that it starts");
    }
    if !start.starts_with(&elf::ELFMAG) {
        return unsupported("it is not an x86_64 ELF program");
    }
    let class = start.get(4..6).unwrap_or_default();
    let (Some(machine), Some(&kind)) = (start.get(18..20), start.get(16)) else {
        return unsupported(truncated(start.len() as u64, size_of::<Header>() as u64));
    };
    let machine = elf::Machine(u16::from_le_bytes([machine[0], machine[1]]));
    if class != [elf::ELFCLASS64.0, elf::ELFDATA2LSB.0] || machine != elf::EM_X86_64 {
        return unsupported(
            "it is not an x86_64 ELF program, but for another architecture, which the plugin does not support",
        );
    }
    if ![elf::ET_EXEC.0, elf::ET_DYN.0].contains(&u16::from(kind)) {
        return unsupported("it is not an x86_64 ELF program, but an object file or a core dump");
    }
    Header::parse(start).or_else(|_| unsupported(truncated(start.len() as u64, size_of::<Header>() as u64)))
}

fn segments_of(source: &Source, header: &Header) -> Result<Vec<Segment>, Error> {
    let count = header.e_phnum(ENDIAN);
    let size = u64::from(count) * size_of::<Segment>() as u64;
    if usize::from(header.e_phentsize(ENDIAN)) != size_of::<Segment>() || count == elf::PN_XNUM {
        return Err(damaged("its program headers have an unknown form"));
    }
    let start = header.e_phoff(ENDIAN);
    match start.checked_add(size) {
        Some(end) if end > source.length => unsupported(truncated(source.length, end)),
        _ => Ok(items_of(&source.read(start, size)?).to_vec()),
    }
}

/// Checks that the file is as long as its headers say.
fn expect_whole(source: &Source, header: &Header, segments: &[Segment]) -> Result<(), Error> {
    let sections = u64::from(header.e_shnum(ENDIAN)) * u64::from(header.e_shentsize(ENDIAN));
    let loaded = segments.iter().filter(|segment| segment.p_type(ENDIAN) == elf::PT_LOAD);
    let mut parts: Vec<_> = loaded.map(|segment| segment.file_range(ENDIAN)).collect();
    parts.push((header.e_shoff(ENDIAN), sections));
    let ends: Option<Vec<u64>> = parts.iter().map(|&(start, size)| start.checked_add(size)).collect();
    match ends.ok_or_else(|| damaged("its headers contradict each other"))?.into_iter().max() {
        Some(end) if end > source.length => unsupported(truncated(source.length, end)),
        _ => Ok(()),
    }
}

fn truncated(length: u64, expected: u64) -> String {
    format!("the file is truncated: it has {length} of at least {expected} bytes; copy or install it again")
}

/// Checks that glibc's loader starts the program, which then loads preloaded objects.
fn expect_loader(source: &Source, segments: &[Segment]) -> Result<(), Error> {
    let Some(segment) = segments.iter().find(|segment| segment.p_type(ENDIAN) == elf::PT_INTERP) else {
        return unsupported(
            "it is linked statically, or is a library, so LD_PRELOAD has no effect on it; give the server's program \
             file",
        );
    };
    let loader = source.read(segment.p_offset(ENDIAN), segment.p_filesz(ENDIAN))?;
    if loader.windows(7).any(|part| part == b"ld-musl") {
        return unsupported("it is built for musl libc; the plugin needs a server built for glibc");
    }
    Ok(())
}

/// The maximum length of a symbol's name, with its NUL. The checked ones have less than a tenth.
const MAX_NAME_LENGTH: usize = 4096;

/// The symbols that a lookup by name finds.
fn exports_of(symbols: &[Symbol], names: &[u8]) -> HashMap<Box<[u8]>, Export> {
    let mut exports = HashMap::new();
    for symbol in symbols {
        let hidden = [elf::STV_HIDDEN, elf::STV_INTERNAL].contains(&symbol.st_visibility());
        let address = symbol.st_value(ENDIAN);
        if !is_defined(symbol) || symbol.st_bind() == elf::STB_LOCAL || hidden || address == 0 {
            continue;
        }
        // The value of a thread-local variable is not an address.
        if symbol.st_type() == elf::STT_TLS {
            continue;
        }
        let name = names.get(symbol.st_name(ENDIAN) as usize..).unwrap_or_default();
        // Many symbols may share one very long name.
        let name = &name[..name.len().min(MAX_NAME_LENGTH)];
        if let Ok(name) = CStr::from_bytes_until_nul(name) {
            let export = Export { address, size: symbol.st_size(ENDIAN) };
            exports.entry(name.to_bytes().into()).or_insert(export);
        }
    }
    exports
}

/// The address and the word of a relocation; `None` if the loader writes no word for it.
fn relocate(relocation: &Relocation, symbols: &[Symbol]) -> Option<(u64, u64)> {
    let addend = relocation.r_addend(ENDIAN).cast_unsigned();
    let symbol = symbols.get(relocation.r_sym(ENDIAN, false) as usize).filter(|symbol| is_defined(symbol));
    let address = symbol.map(|symbol| symbol.st_value(ENDIAN));
    let word = match relocation.r_type(ENDIAN, false) {
        elf::R_X86_64_RELATIVE => addend,
        elf::R_X86_64_64 => address.map_or(0, |address| address.wrapping_add(addend)),
        elf::R_X86_64_GLOB_DAT | elf::R_X86_64_JUMP_SLOT => address.unwrap_or(0),
        // The program computes it at runtime.
        elf::R_X86_64_IRELATIVE => 0,
        _ => return None,
    };
    Some((relocation.r_offset(ENDIAN), word))
}

fn is_defined(symbol: &Symbol) -> bool {
    symbol.st_shndx(ENDIAN) != elf::SHN_UNDEF
}

/// The bytes as items; a rest that is not a whole item is left out.
fn items_of<T: pod::Pod>(bytes: &[u8]) -> &[T] {
    // Cannot fail: `object`'s types have no alignment (feature `unaligned`), and the length fits.
    pod::slice_from_bytes(bytes, bytes.len() / size_of::<T>()).map_or(&[], |(items, _)| items)
}

fn words_of(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(4).map(|word| u64::from(u32_at(word, 0)))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

const CHUNK_SIZE: u64 = 1 << 20;
/// Longer than a version with the NULs around it.
const MAX_VERSION_LENGTH: u64 = 64;

/// The first string between two NULs that is a server's version.
fn first_version(bytes: &[u8]) -> Option<String> {
    let mut rest = bytes;
    // The first string may begin before these bytes.
    let mut is_partial = true;
    while let Ok(text) = CStr::from_bytes_until_nul(rest) {
        let text = text.to_bytes();
        if !is_partial && is_version(text) {
            return String::from_utf8(text.to_vec()).ok();
        }
        is_partial = false;
        rest = &rest[text.len() + 1..];
    }
    None
}

/// Whether it is `MAJOR.MINOR.PATCH` of a series from 4 to 9, with an optional vendor's build.
fn is_version(text: &[u8]) -> bool {
    if !matches!(text, [b'4'..=b'9', b'.', ..]) {
        return false;
    }
    let is_number = |part: &[u8], longest| (1..=longest).contains(&part.len()) && part.iter().all(u8::is_ascii_digit);
    let mut halves = text.splitn(2, |&byte| byte == b'-');
    let numbers: Vec<_> = halves.next().unwrap_or_default().split(|&byte| byte == b'.').collect();
    let build = halves.next().is_none_or(|build| is_number(build, 9));
    matches!(numbers[..], [_, minor, patch] if is_number(minor, 2) && is_number(patch, 2)) && build
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::hash::{DefaultHasher, Hash, Hasher};
    use std::ops::Range;
    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::{Arc, Mutex, OnceLock};

    use tempfile::TempDir;

    use super::*;

    /// An abstract class, as in the server, whose exported vtable has a symbol with a size.
    const SOURCE: &str = r#"
        struct Abstract {
            virtual int first();
            virtual int pure() = 0;
            virtual int last();
        };
        int Abstract::first() { return 1; }
        int Abstract::last() { return 2; }

        extern "C" {
        int number = 5;
        int *its_address = &number;
        int *beyond_it = &number + 1;
        long zeros[512];
        __attribute__((visibility("hidden"))) int hidden = 1;
        static int local = 2;
        int *local_address = &local;
        thread_local int of_a_thread = 3;
        extern char **environ;
        void *of_a_library = (void *)&environ;
        extern const char version[];
        const char version[] = "\0" "1.2.3\0" "6.0.5 \0" "6.0.5-4\0" "5.0.4";
        }
        int main() { return local + hidden; }
    "#;
    const PURE: &str = r#"extern "C" void __cxa_pure_virtual() {}"#;
    /// Makes a shared object a program too, whose words are relocated against symbols.
    const LOADER: &str = r#"
        extern "C" const char loader[] __attribute__((section(".interp"))) = "/lib64/ld-linux-x86-64.so.2";
    "#;

    const STRIPPED: &[&str] = &["-pie", "-fPIE", "-Wl,--strip-all", "-Wl,-z,now", "-Wl,-z,relro"];

    const FIRST: &[u8] = b"_ZN8Abstract5firstEv";
    const LAST: &[u8] = b"_ZN8Abstract4lastEv";
    const VTABLE: &[u8] = b"_ZTV8Abstract";

    struct Built {
        path: PathBuf,
        /// For changed copies.
        folder: TempDir,
    }

    impl Built {
        fn open(&self) -> ServerFile {
            ServerFile::open(&self.path).unwrap()
        }

        fn bytes(&self) -> Vec<u8> {
            fs::read(&self.path).unwrap()
        }

        /// Opens a file with these bytes.
        fn open_changed(&self, bytes: &[u8]) -> Result<ServerFile, Error> {
            self.open_as("changed", bytes)
        }

        /// Opens a file with this name and these bytes.
        fn open_as(&self, name: &str, bytes: &[u8]) -> Result<ServerFile, Error> {
            let path = self.folder.path().join(name);
            // Some file systems flush a file that is overwritten.
            let _ = fs::remove_file(&path);
            fs::write(&path, bytes).unwrap();
            ServerFile::open(&path)
        }
    }

    /// Compiles a program, once for all tests and all their runs.
    fn build(sources: &[&str], arguments: &[&str]) -> Built {
        static BUILDS: Mutex<BTreeMap<PathBuf, Arc<OnceLock<()>>>> = Mutex::new(BTreeMap::new());
        let mut hasher = DefaultHasher::new();
        (sources, arguments).hash(&mut hasher);
        let path = Path::new(env!("OUT_DIR")).join(format!("program-{:016x}", hasher.finish()));
        let once = Arc::clone(BUILDS.lock().unwrap().entry(path.clone()).or_default());
        let folder = tempfile::tempdir().unwrap();
        once.get_or_init(|| {
            if path.exists() {
                return;
            }
            let (source, unfinished) = (folder.path().join("source.cpp"), path.with_extension("unfinished"));
            fs::write(&source, sources.concat()).unwrap();
            let mut command = Command::new("c++");
            command.args(["-w", "-O1", "-rdynamic"]).args(arguments).arg("-o").arg(&unfinished).arg(&source);
            assert!(command.status().expect("c++ runs").success(), "{command:?}");
            fs::rename(&unfinished, &path).unwrap();
        });
        Built { path, folder }
    }

    fn program(arguments: &[&str]) -> Built {
        build(&[SOURCE, PURE], arguments)
    }

    fn address(file: &ServerFile, name: &[u8]) -> u64 {
        file.export(name).unwrap_or_else(|| panic!("{} is not found", String::from_utf8_lossy(name))).address
    }

    fn word_at(file: &ServerFile, name: &[u8]) -> u64 {
        file.word(address(file, name)).unwrap()
    }

    fn expect_all(file: &ServerFile) {
        let vtable = file.export(VTABLE).unwrap();
        assert_eq!(vtable.size, 5 * WORD);
        let words: Vec<_> = (0..5).map(|slot| file.word(vtable.address + slot * WORD).unwrap()).collect();
        let pure = address(file, b"__cxa_pure_virtual");
        let slots = [address(file, FIRST), pure, address(file, LAST)];
        assert_eq!((words[0], &words[2..]), (0, &slots[..]));
        assert_ne!(words[1], 0, "the type's information");
        assert_eq!(word_at(file, b"its_address"), address(file, b"number"));
        assert_eq!(word_at(file, b"beyond_it"), address(file, b"number") + 4);
        assert_ne!(word_at(file, b"local_address"), 0);
        assert_eq!(file.word(address(file, b"zeros") + 511 * WORD), Some(0));
        for name in ["hidden", "local", "of_a_thread", "environ", "", "no such name", "_ZTV8Abstrac"] {
            assert_eq!(file.export(name.as_bytes()), None, "{name}");
        }
        assert_eq!(file.server_version().as_deref(), Some("6.0.5-4"));
    }

    #[test]
    fn symbols_and_words_are_those_of_the_loader_however_the_program_is_linked() {
        for arguments in [
            &["-pie", "-fPIE"][..],
            &["-no-pie", "-fno-pie"],
            &["-pie", "-fPIE", "-Wl,--hash-style=sysv"],
            &["-pie", "-fPIE", "-Wl,--hash-style=both"],
            &["-pie", "-fPIE", "-Wl,-z,pack-relative-relocs"],
            STRIPPED,
            &["-pie", "-fPIE", "-Wl,-z,noseparate-code"],
        ] {
            println!("{arguments:?}");
            expect_all(&program(arguments).open());
        }
        expect_all(&build(&[SOURCE, PURE, LOADER], &["-shared", "-fPIC"]).open());
    }

    #[test]
    fn a_word_from_a_library_is_0() {
        // Here the pure function is that of libstdc++.
        let file = build(&[SOURCE, LOADER], &["-shared", "-fPIC"]).open();
        assert_eq!(file.export(b"__cxa_pure_virtual"), None);
        let vtable = address(&file, VTABLE);
        assert_eq!(file.word(vtable + 3 * WORD), Some(0));
        assert_eq!(file.word(vtable + 4 * WORD), Some(address(&file, LAST)));
        assert_eq!(word_at(&file, b"of_a_library"), 0);
    }

    #[test]
    fn an_address_outside_of_the_program_has_no_word() {
        let file = program(&["-pie", "-fPIE"]).open();
        let end = file.segments.iter().map(|segment| segment.end).max().unwrap();
        for address in [end, end - 1, end - 7, end + 4096, u64::MAX, u64::MAX - 7, u64::MAX / 2] {
            assert_eq!(file.word(address), None, "{address:x}");
        }
        assert_eq!(file.word(end - WORD), Some(0));
    }

    #[test]
    fn section_headers_are_not_needed() {
        let built = program(&["-pie", "-fPIE"]);
        let mut bytes = built.bytes();
        bytes[40..48].fill(0); // e_shoff
        bytes[60..64].fill(0); // e_shnum, e_shstrndx
        expect_all(&built.open_changed(&bytes).unwrap());
    }

    /// The positions of the program headers of a type.
    fn program_headers(bytes: &[u8], kind: elf::ProgramType) -> Vec<Range<usize>> {
        let header = Header::parse(bytes).unwrap();
        let start = header.e_phoff(ENDIAN) as usize;
        let all = (0..usize::from(header.e_phnum(ENDIAN))).map(|index| start + index * size_of::<Segment>());
        let fits = |&at: &usize| u32_at(bytes, at) == kind.0;
        all.filter(fits).map(|at| at..at + size_of::<Segment>()).collect()
    }

    #[test]
    fn a_program_without_dynamic_symbols_exports_nothing() {
        let built = program(&["-pie", "-fPIE"]);
        let mut bytes = built.bytes();
        for header in program_headers(&bytes, elf::PT_DYNAMIC) {
            bytes[header][..4].fill(0);
        }
        let file = built.open_changed(&bytes).unwrap();
        assert!(file.exports.is_empty());
        assert_eq!(file.kind(), None);
        // One that was linked to export nothing.
        let file = build(&["int main() { return 0; }"], &["-Wl,--no-export-dynamic"]).open();
        assert_eq!(file.export(b"main"), None);
    }

    /// The bytes with each place of one text replaced by another of the same length.
    fn replaced(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
        assert_eq!(from.len(), to.len());
        let places: Vec<_> = (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
        assert!(!places.is_empty(), "{}", from.escape_ascii());
        for at in places {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
        bytes
    }

    #[test]
    fn the_kind_is_known_by_symbols_before_the_name() {
        let mongod = build(
            &["namespace mongo { int mongod_main(int, char **) { return 0; } } int main() { return 0; }"],
            &["-pie", "-fPIE", "-Wl,--hash-style=sysv"],
        )
        .bytes();
        let mongos = replaced(mongod.clone(), b"mongod_main", b"mongos_main");
        let built = program(&["-pie", "-fPIE"]);
        let neither = built.bytes();
        for (bytes, name, kind) in [
            (&mongod, "mongos", Some(ServerKind::Mongod)),
            (&mongos, "mongod", Some(ServerKind::Mongos)),
            (&neither, "mongod-6.0", Some(ServerKind::Mongod)),
            (&neither, "mongos", Some(ServerKind::Mongos)),
            (&neither, "server", None),
        ] {
            assert_eq!(built.open_as(name, bytes).unwrap().kind(), kind, "{name}");
        }
    }

    fn reason(result: Result<ServerFile, Error>) -> String {
        match result {
            Err(Error::Unsupported(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn other_files_are_refused_with_the_reason() {
        let built = program(&["-pie", "-fPIE"]);
        let changed = |at: usize, to: &[u8]| {
            let mut bytes = built.bytes();
            bytes[at..at + to.len()].copy_from_slice(to);
            reason(built.open_changed(&bytes))
        };
        let of = |bytes: &[u8]| reason(built.open_changed(bytes));
        assert_eq!(of(b""), "the file is empty");
        assert_eq!(of(b"\x7fEL"), "it is not an x86_64 ELF program");
        assert_eq!(of(b"MZ\x90\x00 and so on"), "it is not an x86_64 ELF program");
        assert!(of(b"#!/bin/sh\nexec mongod\n").contains("it is a script"));
        assert!(of(b"\x7fELF").contains("truncated"));
        let other = "it is not an x86_64 ELF program, but for another architecture";
        assert!(changed(4, &[1]).starts_with(other), "32 bits");
        assert!(changed(5, &[2]).starts_with(other), "big-endian");
        assert!(changed(18, &[183, 0]).starts_with(other), "aarch64");
        assert!(changed(16, &[1, 0]).contains("an object file"));
        assert!(changed(54, &[32, 0]).contains("damaged"), "the size of a program header");
        assert!(changed(32, &[0xff; 8]).contains("damaged"), "where they are");
    }

    #[test]
    fn a_32_bit_program_is_refused_by_its_short_header() {
        let mut header = vec![0; 52];
        header[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
        header[16..20].copy_from_slice(&[2, 0, 3, 0]);
        let built = program(&["-pie", "-fPIE"]);
        assert!(reason(built.open_changed(&header)).contains("another architecture"));
    }

    #[test]
    fn a_program_without_the_system_s_loader_is_refused() {
        let expected = "it is linked statically, or is a library";
        assert!(reason(ServerFile::open(&build(&[SOURCE], &["-static"]).path)).contains(expected));
        let built = program(&["-pie", "-fPIE"]);
        let mut library = built.bytes();
        for header in program_headers(&library, elf::PT_INTERP) {
            library[header][..4].fill(0);
        }
        assert!(reason(built.open_changed(&library)).contains(expected));
        let musl = replaced(built.bytes(), b"ld-linux-x86-64.so.2", b"ld-musl-x86_64.so.1\0");
        assert!(reason(built.open_changed(&musl)).contains("glibc"));
    }

    #[test]
    fn a_file_that_cannot_be_read_has_no_verdict() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        for path in [folder.path(), &missing, Path::new("/dev/null"), Path::new("")] {
            assert!(matches!(ServerFile::open(path), Err(Error::Unreadable(_))), "{}", path.display());
        }
    }

    #[test]
    fn a_truncated_program_is_refused_at_every_length() {
        let built = program(STRIPPED);
        let bytes = built.bytes();
        let path = built.folder.path().join("changed");
        fs::write(&path, &bytes).unwrap();
        assert!(ServerFile::open(&path).is_ok());
        let file = File::options().write(true).open(&path).unwrap();
        for length in (1..bytes.len()).rev() {
            file.set_len(length as u64).unwrap();
            let reason = reason(ServerFile::open(&path));
            let expected = if length < 4 { "it is not an x86_64 ELF program" } else { "the file is truncated" };
            assert!(reason.starts_with(expected), "{length}: {reason}");
        }
    }

    /// Reads a file as the checks do. An error is allowed, a panic is not.
    fn read_all(result: Result<ServerFile, Error>) {
        let Ok(file) = result else { return };
        for name in [VTABLE, FIRST, LAST, b"number", b"zeros"] {
            if let Some(export) = file.export(name) {
                for word in 0..(export.size / WORD).min(40) {
                    let _ = file.word(export.address.wrapping_add(word * WORD));
                }
            }
        }
        let _ = (file.kind(), file.server_version());
    }

    #[test]
    fn a_damaged_program_does_no_harm() {
        let built = program(STRIPPED);
        let bytes = built.bytes();
        let mut places: Vec<usize> = (0..1024).collect();
        for header in program_headers(&bytes, elf::PT_DYNAMIC) {
            let place = |at: usize| u64::from(u32_at(&bytes, header.start + at)) as usize;
            places.extend(place(8)..place(8) + place(32));
        }
        // Symbols, names and relocations are at the beginning, in this order.
        places.extend((1024..4096).step_by(3));
        for &place in &places {
            for value in [0, 0x7f, 0xff, bytes[place].wrapping_add(1)] {
                let mut changed = bytes.clone();
                changed[place] = value;
                read_all(built.open_changed(&changed));
            }
            // The largest number in 8 bytes.
            let mut changed = bytes.clone();
            changed[place..place + 8].fill(0xff);
            read_all(built.open_changed(&changed));
        }
    }

    #[test]
    fn miri_a_version_stands_alone_between_nuls() {
        let cases: [(&[u8], Option<&str>); 14] = [
            (b"\x006.0.5\0", Some("6.0.5")),
            (b"\x004.4.29-28\0", Some("4.4.29-28")),
            (b"x\0\0\x008.0.12\0y", Some("8.0.12")),
            (b"\x006.0.5\x007.0.1\0", Some("6.0.5")),
            (b"\x006.0.5x\x007.0.1\0", Some("7.0.1")),
            (b"6.0.5\0", None),
            (b"\x006.0.5", None),
            (b"\x003.6.23\0", None),
            (b"\x0010.0.1\0", None),
            (b"\x006.0\0", None),
            (b"\x006.0.5.1\0", None),
            (b"\x006.0.5-\0", None),
            (b"\x006.0.123\0", None),
            (b"", None),
        ];
        for (bytes, version) in cases {
            assert_eq!(first_version(bytes).as_deref(), version, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_version_on_the_border_of_two_chunks_is_found() {
        let source = format!(
            "extern \"C\" {{ extern const char filler[{}] = {{1}}; }} int main() {{ return 0; }}",
            2 * CHUNK_SIZE
        );
        let built = build(&[&source], &["-pie", "-fPIE"]);
        let (file, bytes) = (built.open(), built.bytes());
        let filler = address(&file, b"filler");
        let segment = file.segments.iter().find(|segment| segment.holds(filler)).unwrap();
        let border = (segment.offset + CHUNK_SIZE) as usize;
        let version = b"\x006.0.5\0";
        for before in (0..=version.len()).chain([MAX_VERSION_LENGTH as usize]) {
            let mut changed = bytes.clone();
            changed[border - before..][..version.len()].copy_from_slice(version);
            let file = built.open_changed(&changed).unwrap();
            assert_eq!(file.server_version().as_deref(), Some("6.0.5"), "{before}");
        }
    }
}

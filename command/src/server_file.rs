//! A server's file, read without running it: what it exports, and its memory as the loader would lay it out.
//!
//! Everything comes from the program headers and the dynamic section, which is what the loader itself reads: a file
//! without section headers is as good as one with them. Nothing in the file is trusted to be in its bounds.

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

/// Why there is nothing to check.
#[derive(Debug)]
pub enum Trouble {
    /// The file cannot be read.
    Unreadable(String),
    /// The file can be read, and no plugin can work in it, whatever it exports.
    Unfit(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

fn unfit<T>(reason: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Unfit(reason.into()))
}

fn damaged(what: &str) -> Trouble {
    Trouble::Unfit(format!("it is damaged: {what}. Install it again"))
}

/// Which of the two servers it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The database.
    Mongod,
    /// The router of a sharded cluster.
    Mongos,
}

impl Kind {
    /// The name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mongod => "mongod",
            Self::Mongos => "mongos",
        }
    }
}

/// Functions and tables that only one of the two servers has.
const SIGNS: [(&str, Kind); 3] = [
    // 5.0 and newer
    ("_ZN5mongo11mongod_mainEiPPc", Kind::Mongod),
    // Its counterpart, which was not seen in a real file; the name of the file helps where it is missing.
    ("_ZN5mongo11mongos_mainEiPPc", Kind::Mongos),
    // 4.4: the storage engine
    ("_ZTVN5mongo18WiredTigerKVEngineE", Kind::Mongod),
];

/// Where an exported symbol is, in the file's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its address. Never 0.
    pub address: u64,
    /// Its size, 0 when the file does not say.
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
    /// Reads what the checks need of a program.
    pub fn open(path: &Path) -> Result<Self, Trouble> {
        Self::open_with(path, expect_loader)
    }

    /// Reads a shared object, which no loader has to start.
    pub fn open_library(path: &Path) -> Result<Self, Trouble> {
        Self::open_with(path, |_, _| Ok(()))
    }

    fn open_with(
        path: &Path,
        expect_loader: impl FnOnce(&Source, &[Segment]) -> Result<(), Trouble>,
    ) -> Result<Self, Trouble> {
        let source = Source::open(path)?;
        let start = source.read(0, source.length.min(size_of::<Header>() as u64))?;
        let header = program_header(&start)?;
        let segments = segments_of(&source, header)?;
        expect_whole(&source, header, &segments)?;
        expect_loader(&source, &segments)?;

        let mut file = Self {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            segments: segments.iter().filter_map(Loaded::of).collect(),
            source,
            exports: HashMap::new(),
            relocated: HashMap::new(),
        };
        if let Some(segment) = segments.iter().find(|segment| segment.p_type(ENDIAN) == elf::PT_DYNAMIC) {
            file.read_dynamic(segment)?;
        }
        Ok(file)
    }

    /// A symbol that the dynamic linker would find here.
    pub fn export(&self, name: &[u8]) -> Option<Export> {
        self.exports.get(name).copied()
    }

    /// The word at an address, as it is after relocation with the program at its own addresses. One that is relocated
    /// against a symbol of a library is 0. `None` when nothing is loaded there.
    pub fn word(&self, address: u64) -> Option<u64> {
        if let Some(&word) = self.relocated.get(&address) {
            return Some(word);
        }
        // A relocation of DT_RELR adds the base address, here 0, to what is in the file, which therefore is the word.
        let end = address.checked_add(WORD)?;
        let segment = self.segments.iter().find(|segment| segment.start <= address && end <= segment.end)?;
        let mut word = [0; WORD as usize];
        // Beyond what the file has of a segment, memory is zero.
        let there = segment.file_size.saturating_sub(address - segment.start).min(WORD);
        if there > 0 {
            let offset = segment.offset + (address - segment.start);
            word[..there as usize].copy_from_slice(&self.source.read(offset, there).ok()?);
        }
        Some(u64::from_le_bytes(word))
    }

    /// Which server it is, by what it exports, or else by its file name. Only of use for a file that is a server.
    pub fn kind(&self) -> Option<Kind> {
        let sign = SIGNS.iter().find(|(symbol, _)| self.export(symbol.as_bytes()).is_some());
        let by_name = || [Kind::Mongos, Kind::Mongod].into_iter().find(|kind| self.name.contains(kind.name()));
        sign.map(|&(_, kind)| kind).or_else(by_name)
    }

    /// The version that a server says it has, such as `6.0.5` or `6.0.5-4`. Other programs may yield anything.
    pub fn server_version(&self) -> Option<String> {
        self.segments.iter().find_map(|segment| {
            let mut at = segment.offset;
            let end = segment.offset + segment.file_size;
            while at < end {
                let piece = self.source.read(at, (end - at).min(PIECE)).ok()?;
                if let Some(version) = first_version(&piece) {
                    return Some(version);
                }
                // The next piece begins inside this one, for a version on the border.
                at = if at + PIECE < end { at + PIECE - LONGEST_VERSION } else { end };
            }
            None
        })
    }

    fn read_dynamic(&mut self, segment: &Segment) -> Result<(), Trouble> {
        let bytes = self.source.read(segment.p_offset(ENDIAN), segment.p_filesz(ENDIAN))?;
        let entries: &[elf::Dyn64<LittleEndian>] = all_of(&bytes);
        let value = |tag| {
            let used = || entries.iter().take_while(|entry| entry.d_tag(ENDIAN) != elf::DT_NULL);
            used().find(|entry| entry.d_tag(ENDIAN) == tag).map(|entry| entry.d_val(ENDIAN))
        };
        // The tables are where the loader finds them: at addresses, not at offsets.
        let table = |start, size| match (value(start), value(size)) {
            (Some(address), Some(size)) => self.loaded(address, size),
            _ => Ok(Vec::new()),
        };

        let count = match (value(elf::DT_GNU_HASH), value(elf::DT_HASH)) {
            (Some(address), _) => self.count_by_gnu_hash(address)?,
            // The number of chains is that of symbols.
            (None, Some(address)) => u64::from(u32_at(&self.loaded(address, 8)?, 4)),
            (None, None) => 0,
        };
        let symbols = match value(elf::DT_SYMTAB) {
            Some(address) => self.loaded(address, count.saturating_mul(size_of::<Symbol>() as u64))?,
            None => Vec::new(),
        };
        let names = table(elf::DT_STRTAB, elf::DT_STRSZ)?;
        let relocations = [table(elf::DT_RELA, elf::DT_RELASZ)?, table(elf::DT_JMPREL, elf::DT_PLTRELSZ)?];

        let symbols: &[Symbol] = all_of(&symbols);
        self.exports = exports_of(symbols, &names);
        self.relocated =
            relocations.iter().flat_map(|table| all_of(table)).filter_map(|r| relocate(r, symbols)).collect();
        Ok(())
    }

    /// The bytes that are loaded at an address; an error when the file has no such bytes.
    fn loaded(&self, address: u64, size: u64) -> Result<Vec<u8>, Trouble> {
        let outside = || damaged("a table is outside of what is loaded");
        let segment = self.segments.iter().find(|segment| segment.holds(address)).ok_or_else(outside)?;
        let into = address - segment.start;
        if size > segment.file_size - into {
            return Err(outside());
        }
        self.source.read(segment.offset + into, size)
    }

    /// How many symbols there are: nothing says so, but the last of the exported ones ends the last chain of the hash
    /// table.
    fn count_by_gnu_hash(&self, table: u64) -> Result<u64, Trouble> {
        const HEADER: u64 = 16;
        let header = self.loaded(table, HEADER)?;
        let [buckets, first, filters] = [0, 4, 8].map(|at| u64::from(u32_at(&header, at)));
        // Sums that are too large for an address are too large for the file.
        let heads_start = table.saturating_add(HEADER + filters * WORD);
        let heads = self.loaded(heads_start, buckets * 4)?;
        let Some(last) = words_of(&heads).max().filter(|&last| last >= first) else {
            return Ok(first);
        };
        let chain_start = heads_start.saturating_add((buckets + last - first) * 4);
        let chain = self.loaded(chain_start, self.rest(chain_start).min(LONGEST_CHAIN))?;
        // An odd hash ends a chain.
        match words_of(&chain).position(|hash| hash & 1 == 1) {
            Some(length) => Ok(last + 1 + length as u64),
            None => Err(damaged("its table of symbols has no end")),
        }
    }

    /// How many bytes the file has from an address on.
    fn rest(&self, address: u64) -> u64 {
        let segment = self.segments.iter().find(|segment| segment.holds(address));
        segment.map_or(0, |segment| segment.start + segment.file_size - address)
    }
}

/// In bytes: more than a hash table has for all symbols of one hash.
const LONGEST_CHAIN: u64 = 1 << 16;
/// In bytes: more than any server's table has, and less than memory. The largest that was seen has 19 million.
const LARGEST_TABLE: u64 = 1 << 30;

/// What the loader would put into memory from the file.
#[derive(Clone, Copy, Debug)]
struct Loaded {
    start: u64,
    end: u64,
    offset: u64,
    file_size: u64,
}

impl Loaded {
    fn of(segment: &Segment) -> Option<Self> {
        let start = segment.p_vaddr(ENDIAN);
        let end = start.checked_add(segment.p_memsz(ENDIAN))?;
        let file_size = segment.p_filesz(ENDIAN).min(end - start);
        let loaded = segment.p_type(ENDIAN) == elf::PT_LOAD;
        loaded.then_some(Self { start, end, offset: segment.p_offset(ENDIAN), file_size })
    }

    /// Whether an address is in the part that the file has.
    fn holds(&self, address: u64) -> bool {
        (self.start..self.start + self.file_size).contains(&address)
    }
}

/// The file, read by pieces: servers have hundreds of megabytes, with debug information gigabytes.
#[derive(Debug)]
struct Source {
    file: File,
    length: u64,
}

impl Source {
    fn open(path: &Path) -> Result<Self, Trouble> {
        let kind = fs::metadata(path)?;
        if kind.is_dir() {
            return Err(Trouble::Unreadable("it is a directory. Name the server's file in it".to_owned()));
        }
        // A pipe would be waited for.
        if !kind.is_file() {
            return Err(Trouble::Unreadable("it is not a regular file".to_owned()));
        }
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }

    fn read(&self, offset: u64, size: u64) -> Result<Vec<u8>, Trouble> {
        if offset.checked_add(size).is_none_or(|end| end > self.length) {
            return Err(damaged("a part of it is said to be beyond its end"));
        }
        // In a sparse file even more than memory would be there.
        if size > LARGEST_TABLE {
            return Err(damaged("a part of it is too large"));
        }
        let mut bytes = vec![0; size as usize];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

fn program_header(start: &[u8]) -> Result<&Header, Trouble> {
    if start.is_empty() {
        return unfit("the file is empty");
    }
    if start.starts_with(b"#!") {
        return unfit("it is a script, not an x86_64 ELF program. Check the mongod or mongos that it starts");
    }
    if !start.starts_with(&elf::ELFMAG) {
        return unfit("it is not an x86_64 ELF program");
    }
    let class = start.get(4..6).unwrap_or_default();
    let (Some(machine), Some(&kind)) = (start.get(18..20), start.get(16)) else {
        return unfit(cut_off(start.len() as u64, size_of::<Header>() as u64));
    };
    let machine = elf::Machine(u16::from_le_bytes([machine[0], machine[1]]));
    if class != [elf::ELFCLASS64.0, elf::ELFDATA2LSB.0] || machine != elf::EM_X86_64 {
        return unfit("it is not an x86_64 ELF program, but one for other machines, where this plugin does not run");
    }
    if ![elf::ET_EXEC.0, elf::ET_DYN.0].contains(&u16::from(kind)) {
        return unfit("it is not an x86_64 ELF program, but an object file or a core dump");
    }
    Header::parse(start).or_else(|_| unfit(cut_off(start.len() as u64, size_of::<Header>() as u64)))
}

fn segments_of(source: &Source, header: &Header) -> Result<Vec<Segment>, Trouble> {
    let count = header.e_phnum(ENDIAN);
    let size = u64::from(count) * size_of::<Segment>() as u64;
    if usize::from(header.e_phentsize(ENDIAN)) != size_of::<Segment>() || count == elf::PN_XNUM {
        return Err(damaged("its program headers have an unknown form"));
    }
    let start = header.e_phoff(ENDIAN);
    match start.checked_add(size) {
        Some(end) if end > source.length => unfit(cut_off(source.length, end)),
        _ => Ok(all_of(&source.read(start, size)?).to_vec()),
    }
}

/// Says when the file is shorter than its headers promise.
fn expect_whole(source: &Source, header: &Header, segments: &[Segment]) -> Result<(), Trouble> {
    let sections = u64::from(header.e_shnum(ENDIAN)) * u64::from(header.e_shentsize(ENDIAN));
    let loaded = segments.iter().filter(|segment| segment.p_type(ENDIAN) == elf::PT_LOAD);
    let mut parts: Vec<_> = loaded.map(|segment| segment.file_range(ENDIAN)).collect();
    parts.push((header.e_shoff(ENDIAN), sections));
    let ends: Option<Vec<u64>> = parts.iter().map(|&(start, size)| start.checked_add(size)).collect();
    match ends.ok_or_else(|| damaged("its headers contradict each other"))?.into_iter().max() {
        Some(end) if end > source.length => unfit(cut_off(source.length, end)),
        _ => Ok(()),
    }
}

fn cut_off(length: u64, promised: u64) -> String {
    format!("the file is cut off: it has {length} bytes of at least {promised}. Copy or install it again")
}

/// Says when the system's loader would not put a preloaded object into the program, or another loader than glibc's
/// would.
fn expect_loader(source: &Source, segments: &[Segment]) -> Result<(), Trouble> {
    let Some(segment) = segments.iter().find(|segment| segment.p_type(ENDIAN) == elf::PT_INTERP) else {
        return unfit(
            "the system's loader is not asked to start it: it is linked statically, or is a library and no program. \
             LD_PRELOAD has no effect on it",
        );
    };
    let loader = source.read(segment.p_offset(ENDIAN), segment.p_filesz(ENDIAN))?;
    if loader.windows(7).any(|part| part == b"ld-musl") {
        return unfit("it is made for musl libc. The plugin needs a server for glibc");
    }
    Ok(())
}

/// Longest name of a symbol that is kept, with its NUL. None that is looked for is a tenth as long.
const LONGEST_NAME: usize = 4096;

/// The symbols that a look-up by name can find.
fn exports_of(symbols: &[Symbol], names: &[u8]) -> HashMap<Box<[u8]>, Export> {
    let mut exports = HashMap::new();
    for symbol in symbols {
        let hidden = [elf::STV_HIDDEN, elf::STV_INTERNAL].contains(&symbol.st_visibility());
        let address = symbol.st_value(ENDIAN);
        if !is_defined(symbol) || symbol.st_bind() == elf::STB_LOCAL || hidden || address == 0 {
            continue;
        }
        // The value of a thread's variable is no address.
        if symbol.st_type() == elf::STT_TLS {
            continue;
        }
        let name = names.get(symbol.st_name(ENDIAN) as usize..).unwrap_or_default();
        // A file may let many symbols share one very long name.
        let name = &name[..name.len().min(LONGEST_NAME)];
        if let Ok(name) = CStr::from_bytes_until_nul(name) {
            let export = Export { address, size: symbol.st_size(ENDIAN) };
            exports.entry(name.to_bytes().into()).or_insert(export);
        }
    }
    exports
}

/// Where a relocation puts which word; `None` for those that put none there before the program runs.
fn relocate(relocation: &Relocation, symbols: &[Symbol]) -> Option<(u64, u64)> {
    let addend = relocation.r_addend(ENDIAN).cast_unsigned();
    let symbol = symbols.get(relocation.r_sym(ENDIAN, false) as usize).filter(|symbol| is_defined(symbol));
    let address = symbol.map(|symbol| symbol.st_value(ENDIAN));
    let word = match relocation.r_type(ENDIAN, false) {
        elf::R_X86_64_RELATIVE => addend,
        elf::R_X86_64_64 => address.map_or(0, |address| address.wrapping_add(addend)),
        elf::R_X86_64_GLOB_DAT | elf::R_X86_64_JUMP_SLOT => address.unwrap_or(0),
        // The program itself computes it.
        elf::R_X86_64_IRELATIVE => 0,
        _ => return None,
    };
    Some((relocation.r_offset(ENDIAN), word))
}

fn is_defined(symbol: &Symbol) -> bool {
    symbol.st_shndx(ENDIAN) != elf::SHN_UNDEF
}

/// The whole items in some bytes.
fn all_of<T: pod::Pod>(bytes: &[u8]) -> &[T] {
    // Cannot fail: the types of `object` have no alignment (its feature `unaligned`), and only whole items are asked
    // for.
    pod::slice_from_bytes(bytes, bytes.len() / size_of::<T>()).map_or(&[], |(items, _)| items)
}

fn words_of(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(4).map(|word| u64::from(u32_at(word, 0)))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

const PIECE: u64 = 1 << 20;
/// More than a version and the NULs on both sides of it have.
const LONGEST_VERSION: u64 = 64;

/// The first text between two NULs that is the version of a server.
fn first_version(bytes: &[u8]) -> Option<String> {
    let mut rest = bytes;
    // What begins before the bytes may be a part of something else.
    let mut begun_before = true;
    while let Ok(text) = CStr::from_bytes_until_nul(rest) {
        let text = text.to_bytes();
        if !begun_before && is_version(text) {
            return String::from_utf8(text.to_vec()).ok();
        }
        begun_before = false;
        rest = &rest[text.len() + 1..];
    }
    None
}

/// Whether it is three numbers of a series that has a chance, and the number of a vendor's build if there is one.
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
    use std::ops::Range;
    use std::path::PathBuf;
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    /// A class as the server's: abstract, its vtable exported and known by its symbol's size.
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
    /// With this, a shared object is a program as well, whose words are relocated against symbols.
    const LOADER: &str = r#"
        extern "C" const char loader[] __attribute__((section(".interp"))) = "/lib64/ld-linux-x86-64.so.2";
    "#;

    const FIRST: &[u8] = b"_ZN8Abstract5firstEv";
    const LAST: &[u8] = b"_ZN8Abstract4lastEv";
    const VTABLE: &[u8] = b"_ZTV8Abstract";

    struct Built {
        folder: TempDir,
        path: PathBuf,
    }

    impl Built {
        fn open(&self) -> ServerFile {
            ServerFile::open(&self.path).unwrap()
        }

        fn bytes(&self) -> Vec<u8> {
            fs::read(&self.path).unwrap()
        }

        /// Writes other bytes beside the program and opens that.
        fn open_changed(&self, bytes: &[u8]) -> Result<ServerFile, Trouble> {
            let path = self.folder.path().join("changed");
            // A file that is written over, some file systems write to the disk at once.
            let _ = fs::remove_file(&path);
            fs::write(&path, bytes).unwrap();
            ServerFile::open(&path)
        }
    }

    fn build(sources: &[&str], arguments: &[&str]) -> Built {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source.cpp");
        fs::write(&source, sources.concat()).unwrap();
        let path = folder.path().join("program");
        let mut command = Command::new("c++");
        command.args(["-w", "-O1", "-rdynamic"]).args(arguments).arg("-o").arg(&path).arg(&source);
        assert!(command.status().expect("c++ runs").success(), "{command:?}");
        Built { folder, path }
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
    fn symbols_and_words_are_as_the_loader_would_have_them_however_the_program_is_linked() {
        for arguments in [
            &["-pie", "-fPIE"][..],
            &["-no-pie", "-fno-pie"],
            &["-pie", "-fPIE", "-Wl,--hash-style=sysv"],
            &["-pie", "-fPIE", "-Wl,--hash-style=both"],
            &["-pie", "-fPIE", "-Wl,-z,pack-relative-relocs"],
            &["-pie", "-fPIE", "-Wl,--strip-all", "-Wl,-z,now", "-Wl,-z,relro"],
            &["-pie", "-fPIE", "-Wl,-z,noseparate-code"],
        ] {
            println!("{arguments:?}");
            expect_all(&program(arguments).open());
        }
        expect_all(&build(&[SOURCE, PURE, LOADER], &["-shared", "-fPIC"]).open());
    }

    #[test]
    fn a_word_that_a_library_fills_is_0() {
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

    #[test]
    fn the_kind_is_known_by_symbols_before_the_name() {
        let mongod = "namespace mongo { int mongod_main(int, char **) { return 0; } }";
        let mongos = "namespace mongo { int mongos_main(int, char **) { return 0; } }";
        let main = "int main() { return 0; }";
        let cases = [
            (mongod, "mongos", Some(Kind::Mongod)),
            (mongos, "mongod", Some(Kind::Mongos)),
            ("", "mongod-6.0", Some(Kind::Mongod)),
            ("", "mongos", Some(Kind::Mongos)),
            ("", "server", None),
        ];
        for (source, name, kind) in cases {
            let built = build(&[source, main], &[]);
            let path = built.folder.path().join(name);
            fs::rename(&built.path, &path).unwrap();
            assert_eq!(ServerFile::open(&path).unwrap().kind(), kind, "{name}");
        }
    }

    fn reason(result: Result<ServerFile, Trouble>) -> String {
        match result {
            Err(Trouble::Unfit(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_program_for_this_machine_is_told_apart() {
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
        assert!(of(b"\x7fELF").contains("cut off"));
        let other = "it is not an x86_64 ELF program, but one for other machines";
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
        let built = program(&[]);
        assert!(reason(built.open_changed(&header)).contains("other machines"));
    }

    #[test]
    fn a_program_without_the_system_s_loader_is_refused() {
        let expected = "it is linked statically, or is a library";
        assert!(reason(ServerFile::open(&build(&[SOURCE], &["-static"]).path)).contains(expected));
        assert!(reason(ServerFile::open(&build(&[SOURCE], &["-shared", "-fPIC"]).path)).contains(expected));
        let musl = LOADER.replace("ld-linux-x86-64.so.2", "ld-musl-x86_64.so.1");
        let built = build(&[SOURCE, &musl], &["-shared", "-fPIC"]);
        assert!(reason(ServerFile::open(&built.path)).contains("glibc"));
    }

    #[test]
    fn what_cannot_be_read_is_not_judged() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        for path in [folder.path(), &missing, Path::new("/dev/null"), Path::new("")] {
            assert!(matches!(ServerFile::open(path), Err(Trouble::Unreadable(_))), "{}", path.display());
        }
    }

    #[test]
    fn a_truncated_program_is_refused_at_every_length() {
        let built = program(&["-pie", "-fPIE", "-Wl,--strip-all"]);
        let bytes = built.bytes();
        let path = built.folder.path().join("changed");
        fs::write(&path, &bytes).unwrap();
        assert!(ServerFile::open(&path).is_ok());
        let file = File::options().write(true).open(&path).unwrap();
        for length in (1..bytes.len()).rev() {
            file.set_len(length as u64).unwrap();
            let reason = reason(ServerFile::open(&path));
            let expected = if length < 4 { "it is not an x86_64 ELF program" } else { "the file is cut off" };
            assert!(reason.starts_with(expected), "{length}: {reason}");
        }
    }

    /// Uses a file as the checks do; it may be refused, and that is all.
    fn use_all(result: Result<ServerFile, Trouble>) {
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
        let built = program(&["-pie", "-fPIE", "-Wl,--strip-all"]);
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
                use_all(built.open_changed(&changed));
            }
            // A whole number at once, as large as can be.
            let mut changed = bytes.clone();
            changed[place..place + 8].fill(0xff);
            use_all(built.open_changed(&changed));
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
    fn a_version_on_the_border_of_two_pieces_is_found() {
        let source = |before: u64| {
            format!(
                "extern \"C\" {{ extern const char filler[{before}] = {{1}}; extern const char text[] = \"\\0006.0.5\"; }}
                 int main() {{ return 0; }}"
            )
        };
        for before in [PIECE - LONGEST_VERSION - 1, PIECE - 4, PIECE - 1, PIECE] {
            // The text is placed by the start of the segment, so that the border goes through it at some padding.
            for padding in 0..3 {
                let file = build(&[&source(before + padding * 3)], &["-pie", "-fPIE"]).open();
                assert_eq!(file.server_version().as_deref(), Some("6.0.5"), "{before}");
            }
        }
    }
}

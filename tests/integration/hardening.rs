//! Hardening by the linker, read from the files: it makes a defect harder to exploit.

use std::fs;
use std::path::PathBuf;

use object::LittleEndian;
use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};

use crate::support::{command, plugin};

type Header = elf::FileHeader64<LittleEndian>;
type Segment = elf::ProgramHeader64<LittleEndian>;

const ENDIAN: LittleEndian = LittleEndian;

/// The headers that the loader uses.
struct Image {
    name: String,
    kind: u16,
    segments: Vec<Segment>,
    /// Tags and values of the dynamic section.
    dynamic: Vec<(elf::DynamicTag, u64)>,
}

impl Image {
    fn read(path: PathBuf) -> Self {
        let bytes = fs::read(&path).unwrap();
        let header = Header::parse(&*bytes).unwrap();
        let segments = header.program_headers(ENDIAN, &*bytes).unwrap();
        let dynamic = segments.iter().find_map(|segment| segment.dynamic(ENDIAN, &*bytes).unwrap()).unwrap();
        Self {
            name: path.display().to_string(),
            kind: header.e_type(ENDIAN).0,
            segments: segments.to_vec(),
            dynamic: dynamic.iter().map(|entry| (entry.d_tag(ENDIAN), entry.d_val(ENDIAN))).collect(),
        }
    }

    fn value(&self, tag: elf::DynamicTag) -> Option<u64> {
        self.dynamic.iter().find(|(found, _)| *found == tag).map(|(_, value)| *value)
    }

    fn has_flags(&self, tag: elf::DynamicTag, flags: u64) -> bool {
        self.value(tag).is_some_and(|found| found & flags == flags)
    }
}

#[test]
fn the_object_and_the_command_are_hardened() {
    for image in [Image::read(plugin()), Image::read(command())] {
        let name = &image.name;
        assert_eq!(image.kind, elf::ET_DYN.0, "{name} is loaded at a fixed address");

        // Symbols are bound at load, and their tables are read-only afterwards.
        let now = image.has_flags(elf::DT_FLAGS, elf::DF_BIND_NOW.0);
        assert!(now && image.has_flags(elf::DT_FLAGS_1, elf::DF_1_NOW.0), "{name} is bound lazily");
        let of_kind = |kind| image.segments.iter().find(move |segment| segment.p_type(ENDIAN) == kind);
        let relro = of_kind(elf::PT_GNU_RELRO).unwrap_or_else(|| panic!("{name} has no RELRO"));
        let table = image.value(elf::DT_PLTGOT).unwrap();
        let end = relro.p_vaddr(ENDIAN) + relro.p_memsz(ENDIAN);
        assert!((relro.p_vaddr(ENDIAN)..end).contains(&table), "{name}: the table of function addresses is writable");

        let stack =
            of_kind(elf::PT_GNU_STACK).unwrap_or_else(|| panic!("{name} does not state the permissions of its stack"));
        assert_eq!(stack.p_flags(ENDIAN).0 & elf::PF_X.0, 0, "{name} requires an executable stack");
        for segment in &image.segments {
            let both = elf::PF_W.0 | elf::PF_X.0;
            assert_ne!(segment.p_flags(ENDIAN).0 & both, both, "{name} has memory that is writable and executable");
        }
        assert_eq!(image.value(elf::DT_TEXTREL), None, "{name} has relocations in code");
        assert!(!image.has_flags(elf::DT_FLAGS, elf::DF_TEXTREL.0), "{name}");
        for path in [elf::DT_RPATH, elf::DT_RUNPATH] {
            assert_eq!(image.value(path), None, "{name} has a search path for libraries");
        }
    }
    let command = Image::read(command());
    assert!(command.has_flags(elf::DT_FLAGS_1, elf::DF_1_PIE.0), "{} is not a PIE", command.name);
}

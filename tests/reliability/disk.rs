//! A disk that forgets: from the changes that a program made, what a disk may hold after the power failed at any of them.
//!
//! POSIX promises this much: the content of a file is on the disk after `fsync` of the file, a name in a directory after
//! `fsync` of the directory. Everything else may or may not be there: of the changes to one file or directory since its last
//! `fsync`, any first few, the last of them by half; of two files or directories, one without the other.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use crate::Dice;

/// One change.
#[derive(Clone, Debug)]
pub enum Change {
    Create { inode: u64, path: String },
    Mkdir { inode: u64, path: String },
    Write { inode: u64, at: usize, bytes: Vec<u8>, path: String },
    Length { inode: u64, length: usize },
    Sync { inode: u64 },
    Rename { from: String, to: String },
    Unlink { path: String },
}

/// Reads the shim's log.
pub fn read_log(log: &[u8]) -> Vec<Change> {
    let mut out = Vec::new();
    let mut rest = log;
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let line = std::str::from_utf8(&rest[..end]).expect("paths are UTF-8");
        rest = &rest[end + 1..];
        let (op, line) = line.split_once(' ').expect("a change has words");
        let (inode, line) = line.split_once(' ').expect("a change has an inode");
        let inode = inode.parse().expect("an inode is a number");
        let number = |text: &str| text.parse::<usize>().expect("a number");
        out.push(match op {
            "create" => Change::Create { inode, path: line.into() },
            "mkdir" => Change::Mkdir { inode, path: line.into() },
            "sync" => Change::Sync { inode },
            "unlink" => Change::Unlink { path: line.into() },
            "length" => Change::Length { inode, length: number(line.split_once(' ').expect("a length").0) },
            "rename" => {
                let (from, to) = line.split_once('\t').expect("two paths");
                Change::Rename { from: from.into(), to: to.into() }
            }
            "write" => {
                let mut words = line.splitn(3, ' ');
                let mut next = || words.next().expect("a write has a place, a length and a path");
                let (at, length, path) = (number(next()), number(next()), next().to_string());
                let bytes = rest[..length].to_vec();
                rest = &rest[length + 1..];
                Change::Write { inode, at, bytes, path }
            }
            other => panic!("`{other}` is no change"),
        });
    }
    out
}

/// What a file or a directory is, and what of it is on the disk.
enum Node {
    File { now: Vec<u8>, durable: Vec<u8>, pending: Vec<Edit> },
    Dir { now: Names, durable: Names, pending: Vec<Naming> },
}

type Names = BTreeMap<String, usize>;

#[derive(Clone)]
enum Edit {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// A change of the names in a directory; each happens or does not.
#[derive(Clone)]
enum Naming {
    Link(String, usize),
    Unlink(String),
    Rename(String, String, usize),
}

/// How much a disk keeps of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Everything: the process was killed, the machine was not.
    All,
    /// Nothing.
    Synced,
    /// Every name, no content: files that are there and empty.
    Names,
    /// Of each file and directory any first few changes.
    Some,
}

impl Memory {
    pub const ANY: [Memory; 4] = [Memory::All, Memory::Synced, Memory::Names, Memory::Some];
}

/// The tree below one directory.
pub struct Disk {
    root: String,
    nodes: Vec<Node>,
    inodes: HashMap<u64, usize>,
}

impl Disk {
    pub fn new(root: &Path) -> Disk {
        let root = root.to_str().expect("a plain path").to_string();
        let dir = Node::Dir { now: Names::new(), durable: Names::new(), pending: Vec::new() };
        Disk { root, nodes: vec![dir], inodes: HashMap::new() }
    }

    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Create { inode, path } => {
                let file = Node::File { now: Vec::new(), durable: Vec::new(), pending: Vec::new() };
                self.link(*inode, path, file);
            }
            Change::Mkdir { inode, path } if *path == self.root => {
                self.inodes.insert(*inode, 0);
            }
            Change::Mkdir { inode, path } => {
                let dir = Node::Dir { now: Names::new(), durable: Names::new(), pending: Vec::new() };
                self.link(*inode, path, dir);
            }
            Change::Write { inode, at, bytes, .. } => self.edit(*inode, Edit::Write(*at, bytes.clone())),
            Change::Length { inode, length } => self.edit(*inode, Edit::Length(*length)),
            Change::Sync { inode } => {
                let Some(id) = self.inodes.get(inode) else { return };
                match &mut self.nodes[*id] {
                    Node::File { now, durable, pending } => {
                        durable.clone_from(now);
                        pending.clear();
                    }
                    Node::Dir { now, durable, pending } => {
                        durable.clone_from(now);
                        pending.clear();
                    }
                }
            }
            Change::Unlink { path } => {
                let (dir, name) = self.parent(path);
                self.name(dir, Naming::Unlink(name));
            }
            Change::Rename { from, to } => {
                let (from_dir, from) = self.parent(from);
                let (to_dir, to) = self.parent(to);
                let Node::Dir { now, .. } = &self.nodes[from_dir] else { panic!("a directory") };
                let id = now[&from];
                if from_dir == to_dir {
                    self.name(from_dir, Naming::Rename(from, to, id));
                } else {
                    self.name(to_dir, Naming::Link(to, id));
                    self.name(from_dir, Naming::Unlink(from));
                }
            }
        }
    }

    fn link(&mut self, inode: u64, path: &str, node: Node) {
        let id = self.nodes.len();
        self.nodes.push(node);
        // The number may have been that of a file which is gone.
        self.inodes.insert(inode, id);
        let (dir, name) = self.parent(path);
        self.name(dir, Naming::Link(name, id));
    }

    fn name(&mut self, dir: usize, naming: Naming) {
        let Node::Dir { now, pending, .. } = &mut self.nodes[dir] else { panic!("a directory") };
        rename(now, &naming);
        pending.push(naming);
    }

    fn edit(&mut self, inode: u64, edit: Edit) {
        let Some(id) = self.inodes.get(&inode) else { return };
        let Node::File { now, pending, .. } = &mut self.nodes[*id] else { panic!("a file") };
        apply(now, &edit, usize::MAX);
        pending.push(edit);
    }

    /// The directory and the name that a path means now.
    fn parent(&self, path: &str) -> (usize, String) {
        let inside = path.strip_prefix(&self.root).unwrap_or_else(|| panic!("{path} is outside"));
        let (dirs, name) = inside.rsplit_once('/').unwrap_or(("", inside));
        let mut at = 0;
        for part in dirs.split('/').filter(|p| !p.is_empty()) {
            let Node::Dir { now, .. } = &self.nodes[at] else { panic!("{path}: a directory") };
            at = *now.get(part).unwrap_or_else(|| panic!("{path}: {part} was never made"));
        }
        (at, name.to_string())
    }

    /// Writes what a disk of this memory may hold into an empty directory.
    pub fn write_image(&self, memory: Memory, dice: &mut Dice, into: &Path) {
        self.image(0, memory, dice, into);
    }

    fn image(&self, id: usize, memory: Memory, dice: &mut Dice, into: &Path) {
        let Node::Dir { now, durable, pending } = &self.nodes[id] else { panic!("a directory") };
        let names = match memory {
            Memory::All | Memory::Names => now.clone(),
            Memory::Synced => durable.clone(),
            Memory::Some => {
                let mut names = durable.clone();
                let kept = dice.below(pending.len() as u64 + 1) as usize;
                pending[..kept].iter().for_each(|n| rename(&mut names, n));
                names
            }
        };
        for (name, id) in names {
            let path = into.join(name);
            match &self.nodes[id] {
                Node::Dir { .. } => {
                    fs::create_dir(&path).expect("a directory");
                    self.image(id, memory, dice, &path);
                }
                Node::File { now, durable, pending } => {
                    let content = match memory {
                        Memory::All => now.clone(),
                        Memory::Synced | Memory::Names => durable.clone(),
                        Memory::Some => some(durable, pending, dice),
                    };
                    fs::write(&path, content).expect("a file");
                }
            }
        }
    }
}

/// What is durable, and of what is pending the first few, the last of them by half.
fn some(durable: &[u8], pending: &[Edit], dice: &mut Dice) -> Vec<u8> {
    let mut content = durable.to_vec();
    let kept = dice.below(pending.len() as u64 + 1) as usize;
    for (i, edit) in pending[..kept].iter().enumerate() {
        let whole = i + 1 < kept || dice.below(2) == 0;
        let length = if let Edit::Write(_, bytes) = edit { bytes.len() as u64 } else { 0 };
        apply(&mut content, edit, if whole { usize::MAX } else { dice.below(length + 1) as usize });
    }
    content
}

/// Applies at most `limit` bytes of a write.
fn apply(content: &mut Vec<u8>, edit: &Edit, limit: usize) {
    match edit {
        Edit::Length(length) => content.resize(*length, 0),
        Edit::Write(at, bytes) => {
            let bytes = &bytes[..bytes.len().min(limit)];
            if content.len() < at + bytes.len() {
                content.resize(at + bytes.len(), 0);
            }
            content[*at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
}

fn rename(names: &mut Names, naming: &Naming) {
    match naming {
        Naming::Link(name, id) => _ = names.insert(name.clone(), *id),
        Naming::Unlink(name) => _ = names.remove(name),
        Naming::Rename(from, to, id) => {
            names.remove(from);
            names.insert(to.clone(), *id);
        }
    }
}

#[test]
fn a_disk_keeps_what_was_synced_and_may_forget_the_rest() {
    let log =
        b"mkdir 1 /r\nmkdir 2 /r/d\nsync 1 /r\ncreate 3 /r/d/.t\nwrite 3 0 3 /r/d/.t\nabc\nsync 3 /r/d/.t\nrename 3 \
                /r/d/.t\t/r/d/f\n"
            .to_vec();
    let image = |log: &[u8], memory| {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = Disk::new(Path::new("/r"));
        read_log(log).iter().for_each(|c| disk.apply(c));
        disk.write_image(memory, &mut Dice::new(0), dir.path());
        fs::read(dir.path().join("d/f")).ok()
    };
    assert_eq!(image(&log, Memory::All), Some(b"abc".to_vec()));
    assert_eq!(image(&log, Memory::Synced), None, "its name was not synced");
    let log = [&log[..], b"sync 2 /r/d\nwrite 3 3 2 /r/d/f\nde\n"].concat();
    assert_eq!(image(&log, Memory::Synced), Some(b"abc".to_vec()));
    assert_eq!(image(&log, Memory::All), Some(b"abcde".to_vec()));
    // Without the sync of the file it may be there and empty.
    let careless: Vec<u8> = String::from_utf8(log).unwrap().replace("sync 3 /r/d/.t\n", "").into_bytes();
    assert_eq!(image(&careless, Memory::Names), Some(Vec::new()));
}

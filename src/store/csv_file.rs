//! The tidy CSV of one run and stack: `benchmark_{model}_{method}_{engine}_{timestamp}.csv`. Rows are appended and synced
//! one by one; each is one line, so that whatever a killed process leaves after the last end of line is not a row.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::row::{Row, columns};
use super::{Store, StoreError, atomic};

/// An open results file, locked for as long as it is open.
#[derive(Debug)]
pub struct ResultsCsv {
    file: File,
    path: PathBuf,
    /// Length up to the end of the last whole row.
    len: u64,
    rows: u64,
}

impl Store {
    /// Where the results of a run and stack are.
    pub fn csv_path(&self, directory: &str, timestamp: &str) -> PathBuf {
        self.stack_dir(directory).join(format!("benchmark_{directory}_{timestamp}.csv"))
    }
}

impl ResultsCsv {
    /// Claims the name, which must be free, and writes the header. `Ok(None)` when it is taken.
    pub fn claim(path: &Path) -> Result<Option<ResultsCsv>, StoreError> {
        if let Some(dir) = path.parent() {
            atomic::create_dir(dir)?;
        }
        let file = match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(None),
            Err(e) => return Err(StoreError::io("create", path)(e)),
        };
        file.lock().map_err(StoreError::io("lock", path))?;
        let mut csv = ResultsCsv { file, path: path.to_path_buf(), len: 0, rows: 0 };
        csv.write(header().as_bytes())?;
        if let Some(dir) = path.parent() {
            atomic::sync_dir(dir)?;
        }
        Ok(Some(csv))
    }

    /// Appends a row; it is on the disk when this returns.
    pub fn append(&mut self, row: &Row) -> Result<(), StoreError> {
        self.write(line(row.texts()).as_bytes())?;
        self.rows += 1;
        Ok(())
    }

    /// Which rows are there.
    pub(super) fn keys(&mut self) -> Result<HashSet<RowKey>, StoreError> {
        let bytes = std::fs::read(&self.path).map_err(StoreError::io("read", &self.path))?;
        Ok(row_keys(&bytes))
    }

    /// Closes the file; one without rows is removed.
    pub fn finish(self) -> Result<(), StoreError> {
        if self.rows == 0 { atomic::remove(&self.path) } else { Ok(()) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file of a dead run, made new when it is not there, and cuts a torn tail. `Ok(None)` when a live process
    /// has it open. The second value names the rows that are there.
    pub(super) fn reopen(path: &Path) -> Result<Option<(ResultsCsv, HashSet<RowKey>)>, StoreError> {
        if let Some(dir) = path.parent() {
            atomic::create_dir(dir)?;
        }
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = open.map_err(StoreError::io("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(e)) => return Err(StoreError::io("lock", path)(e)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        // Columns of another version of the tool: every row is written anew.
        let keep = if bytes[..whole].starts_with(header().as_bytes()) { whole } else { 0 };
        let keys = row_keys(&bytes[..keep]);
        let mut csv = ResultsCsv { file, path: path.to_path_buf(), len: keep as u64, rows: keys.len() as u64 };
        csv.cut()?;
        if keep == 0 {
            csv.write(header().as_bytes())?;
        }
        Ok(Some((csv, keys)))
    }

    /// Writes at the end, or leaves the file as it was.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let done = self.file.seek(SeekFrom::Start(self.len)).and_then(|_| self.file.write_all(bytes));
        match done.and_then(|()| self.file.sync_data()) {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(e) => {
                // The error that is reported is the first one; a tail that stays is cut at the next start.
                let _ = self.cut();
                Err(StoreError::io("append to", &self.path)(e))
            }
        }
    }

    fn cut(&mut self) -> Result<(), StoreError> {
        self.file.set_len(self.len).map_err(StoreError::io("cut the tail of", &self.path))
    }
}

/// What tells two rows of one file apart: unit, sample, try, and whether it is a sample or a failure.
pub(super) type RowKey = (String, String, String, bool);

pub(super) fn row_key(row: &Row) -> RowKey {
    let texts: Vec<String> = row.texts().collect();
    key_of(|name| texts.get(position(name)?).map(String::as_str)).expect("a row has every column")
}

pub(super) fn row_keys(bytes: &[u8]) -> HashSet<RowKey> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    reader.records().filter_map(|record| record.ok()).filter_map(|r| key_of(|name| r.get(position(name)?))).collect()
}

fn key_of<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Option<RowKey> {
    let text = |name| get(name).map(str::to_string);
    let is_sample = matches!(get("status")?, "measured" | "invalid");
    Some((text("unit_id")?, text("sample")?, text("attempt")?, is_sample))
}

fn position(name: &str) -> Option<usize> {
    columns().iter().position(|c| c.name == name)
}

/// The header line.
pub fn header() -> String {
    line(columns().iter().map(|c| c.name.to_string()))
}

/// One CSV line of texts without line ends.
fn line(texts: impl Iterator<Item = String>) -> String {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    writer.write_record(texts.collect::<Vec<_>>()).expect("writing to memory does not fail");
    let bytes = writer.into_inner().expect("flushing to memory does not fail");
    String::from_utf8(bytes).expect("texts are UTF-8")
}

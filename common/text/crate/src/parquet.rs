//! Rows of Parquet files as lines of JSON, a row group at a time.

use crate::{guard, utf8, Bytes};
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use std::fs::File;

pub struct ParquetFile {
    reader: SerializedFileReader<File>,
}

/// # Safety
/// `path` holds `size` bytes; `out` and `groups` are writable. Free the result with `rein_parquet_free`.
#[no_mangle]
pub unsafe extern "C" fn rein_parquet_open(
    path: *const u8, size: usize, out: *mut *mut ParquetFile, groups: *mut u32,
) -> Bytes {
    guard(|| {
        let file = File::open(utf8(path, size)?).map_err(|e| e.to_string())?;
        let reader = SerializedFileReader::new(file).map_err(|e| e.to_string())?;
        *groups = u32::try_from(reader.num_row_groups()).map_err(|e| e.to_string())?;
        *out = Box::into_raw(Box::new(ParquetFile { reader }));
        Ok(())
    })
}

/// # Safety
/// `file` comes from `rein_parquet_open` and is freed once.
#[no_mangle]
pub unsafe extern "C" fn rein_parquet_free(file: *mut ParquetFile) {
    if !file.is_null() {
        drop(Box::from_raw(file));
    }
}

/// The rows of one group, each a JSON object on a line of its own.
///
/// # Safety
/// `file` comes from `rein_parquet_open`; `out` is writable.
#[no_mangle]
pub unsafe extern "C" fn rein_parquet_lines(file: *const ParquetFile, group: u32, out: *mut Bytes) -> Bytes {
    guard(|| {
        let group = (*file).reader.get_row_group(group as usize).map_err(|e| e.to_string())?;
        let mut lines = Vec::new();
        for row in group.get_row_iter(None).map_err(|e| e.to_string())? {
            let row = row.map_err(|e| e.to_string())?;
            serde_json::to_writer(&mut lines, &row.to_json_value()).map_err(|e| e.to_string())?;
            lines.push(b'\n');
        }
        *out = lines.into();
        Ok(())
    })
}

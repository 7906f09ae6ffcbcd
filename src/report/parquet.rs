//! The rows as Parquet: one row group, every column optional, typed as [`Kind`] says, dictionary encoding and no
//! compression, which needs a codec and saves nothing on files of this size.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};

use super::Report;
use super::rows::rows;
use crate::store::row::{Column, Field, Kind, Row, columns};

/// Writes all rows.
pub fn write(report: &Report, out: impl Write + Send) -> Result<()> {
    let rows: Vec<Row> = rows(report).collect();
    let note = KeyValue::new("columns".to_string(), "docs/artifacts.md of llmatrix".to_string());
    let properties = WriterProperties::builder()
        .set_created_by(format!("llmatrix {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(vec![note]))
        .build();
    let mut file = SerializedFileWriter::new(out, schema()?, Arc::new(properties))?;
    let mut group = file.next_row_group()?;
    for (index, column) in columns().iter().enumerate() {
        let fields: Vec<&Field> = rows.iter().map(|row| &row.fields()[index]).collect();
        write_column(&mut group, column, &fields)?;
    }
    group.close()?;
    file.close().map(drop)
}

fn schema() -> Result<TypePtr> {
    let field = |column: &Column| {
        let (physical, logical) = match column.kind() {
            Kind::Flag => (Physical::BOOLEAN, None),
            Kind::Count => (Physical::INT64, None),
            Kind::Number => (Physical::DOUBLE, None),
            Kind::Time => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MILLIS))),
            Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        };
        let builder = Type::primitive_type_builder(column.name, physical).with_repetition(Repetition::OPTIONAL);
        builder.with_logical_type(logical).build().map(Arc::new)
    };
    let fields = columns().iter().map(field).collect::<Result<Vec<_>>>()?;
    Type::group_type_builder("results").with_fields(fields).build().map(Arc::new)
}

fn write_column<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    column: &Column,
    fields: &[&Field],
) -> Result<()> {
    match column.kind() {
        Kind::Flag => put::<BoolType, W>(group, column, fields, |f| match f {
            Field::Bool(b) => Some(*b),
            _ => None,
        }),
        Kind::Count => put::<Int64Type, W>(group, column, fields, |f| match f {
            Field::Int(i) => i64::try_from(*i).ok(),
            _ => None,
        }),
        Kind::Number => put::<DoubleType, W>(group, column, fields, |f| match f {
            Field::Float(x) => Some(*x),
            Field::Int(i) => Some(*i as f64),
            _ => None,
        }),
        Kind::Time => put::<Int64Type, W>(group, column, fields, |f| match f {
            Field::Text(t) => t.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond),
            _ => None,
        }),
        Kind::Text => put::<ByteArrayType, W>(group, column, fields, |f| match f {
            Field::Text(t) => Some(ByteArray::from(t.as_str())),
            _ => None,
        }),
    }
}

/// Writes the values that are there, and for every row whether it has one. A value of another kind than the column's is
/// an error, not a gap.
fn put<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    column: &Column,
    fields: &[&Field],
    value: impl Fn(&Field) -> Option<T::T>,
) -> Result<()> {
    let mut values = Vec::with_capacity(fields.len());
    let mut levels = Vec::with_capacity(fields.len());
    for field in fields {
        match (field, value(field)) {
            (_, Some(value)) => {
                values.push(value);
                levels.push(1);
            }
            (Field::Empty, None) => levels.push(0),
            (field, None) => {
                return Err(ParquetError::General(format!("{} cannot hold {field:?}", column.name)));
            }
        }
    }
    let mut writer = group.next_column()?.ok_or_else(|| ParquetError::General("a column too many".into()))?;
    writer.typed::<T>().write_batch(&values, Some(&levels), None)?;
    writer.close()
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field as Value;

    use super::super::testing::report;
    use super::*;

    #[test]
    fn every_value_reads_back() {
        let report = report();
        let mut file = tempfile::tempfile().unwrap();
        write(&report, &mut file).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        let read: Vec<parquet::record::Row> = reader.get_row_iter(None).unwrap().map(|r| r.unwrap()).collect();
        let rows: Vec<Row> = rows(&report).collect();
        assert_eq!(read.len(), rows.len());
        for (read, row) in read.iter().zip(&rows) {
            for ((name, value), field) in read.get_column_iter().zip(row.fields()) {
                let same = match (value, field) {
                    (Value::Null, Field::Empty) => true,
                    (Value::Bool(a), Field::Bool(b)) => a == b,
                    (Value::Long(a), Field::Int(b)) => *a as u64 == *b,
                    (Value::Double(a), Field::Float(b)) => a == b,
                    (Value::Str(a), Field::Text(b)) => a == b,
                    (Value::TimestampMillis(a), Field::Text(b)) => {
                        *a == b.parse::<jiff::Timestamp>().unwrap().as_millisecond()
                    }
                    _ => false,
                };
                assert!(same, "{name}: {value:?} for {field:?}");
            }
        }
    }
}

//! What goes to stdout: data, and nothing else. Notes, progress and errors go to stderr.
//!
//! Pairs are streamed: memory does not grow with the number of records (a table is printed in blocks).

use std::io::{self, BufWriter, IsTerminal, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::ValueEnum;
use serde_json::{Map, Value};

use crate::cli::Global;
use crate::failure::Failure;
use crate::text::show;

/// Rows of one block of a table.
const TABLE_ROWS: usize = 500;

/// How records look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One record per line, TAB between key and value, escaped
    Plain,
    /// One JSON document
    Json,
    /// One JSON object per line
    Jsonl,
    /// With a header, escaped
    Csv,
    /// The bytes as they are
    Raw,
}

/// Which parts of a pair are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Columns {
    /// Both.
    Pair,
    /// The key alone.
    Key,
    /// The value alone, of one key that was asked for by name.
    Value,
}

/// The way to stdout.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
    header: bool,
    separator: u8,
}

impl Output {
    /// As the options say, or as the terminal suggests.
    pub(crate) fn new(global: &Global) -> Output {
        let fitting = if io::stdout().is_terminal() { Format::Table } else { Format::Plain };
        Output {
            format: global.output.unwrap_or(fitting),
            header: !global.no_header,
            separator: if global.null { 0 } else { b'\n' },
        }
    }

    /// The same in another format.
    pub(crate) fn with_format(&self, format: Format) -> Output {
        Output { format, ..self.clone() }
    }

    /// Prints pairs to stdout.
    pub(crate) fn pairs(&self, columns: Columns) -> Pairs<BufWriter<io::Stdout>> {
        self.pairs_to(columns, BufWriter::new(io::stdout()))
    }

    fn pairs_to<W: Write>(&self, columns: Columns, out: W) -> Pairs<W> {
        Pairs { output: self.clone(), columns, out, count: 0, block: Vec::new() }
    }

    /// Prints one JSON value, or the plain text that stands for it.
    pub(crate) fn value(&self, json: &Value, plain: &str) -> Result<(), Failure> {
        let text = match self.format {
            Format::Json | Format::Jsonl => json.to_string(),
            Format::Table | Format::Plain | Format::Csv | Format::Raw => plain.to_owned(),
        };
        let mut out = io::stdout().lock();
        let end = [self.separator];
        out.write_all(text.as_bytes()).and_then(|()| out.write_all(&end)).map_err(stdout_failure)
    }

    /// Prints records: each as cells under the header, and as JSON where that is asked for.
    pub(crate) fn records(&self, header: &[&str], records: Vec<Record>) -> Result<(), Failure> {
        let mut out = BufWriter::new(io::stdout());
        let printed = self.records_to(&mut out, header, records);
        printed.and_then(|()| out.flush()).map_err(stdout_failure)
    }

    fn records_to(
        &self,
        out: &mut impl Write,
        header: &[&str],
        records: Vec<Record>,
    ) -> io::Result<()> {
        match self.format {
            Format::Json => {
                let list = records.into_iter().map(|record| record.json).collect();
                writeln!(out, "{}", Value::Array(list))
            }
            Format::Jsonl => records.into_iter().try_for_each(|record| {
                write!(out, "{}", record.json)?;
                out.write_all(&[self.separator])
            }),
            Format::Table | Format::Plain | Format::Csv | Format::Raw => {
                let rows: Vec<_> = records.into_iter().map(|record| record.cells).collect();
                self.rows_to(out, header, &rows)
            }
        }
    }

    /// Prints one record in full: a field per line, or its JSON.
    pub(crate) fn fields(&self, fields: &[(&str, String)], json: &Value) -> Result<(), Failure> {
        match self.format {
            Format::Json | Format::Jsonl => self.value(json, ""),
            Format::Table | Format::Plain | Format::Csv | Format::Raw => {
                let row = |(name, value): &(&str, String)| vec![(*name).to_owned(), value.clone()];
                self.rows(&["field", "value"], &fields.iter().map(row).collect::<Vec<_>>())
            }
        }
    }

    /// Prints rows under a header: a table, or lines of TAB-separated cells.
    pub(crate) fn rows(&self, header: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        let mut out = BufWriter::new(io::stdout());
        self.rows_to(&mut out, header, rows).and_then(|()| out.flush()).map_err(stdout_failure)
    }

    fn rows_to(
        &self,
        out: &mut impl Write,
        header: &[&str],
        rows: &[Vec<String>],
    ) -> io::Result<()> {
        if self.format == Format::Table {
            let mut table = new_table();
            if self.header {
                table.set_header(header.iter().copied());
            }
            rows.iter().for_each(|row| {
                table.add_row(row);
            });
            return writeln!(out, "{table}");
        }
        if self.format == Format::Csv && self.header {
            writeln!(out, "{}", header.join(","))?;
        }
        for row in rows {
            let line = match self.format {
                Format::Csv => row.iter().map(|cell| csv_cell(cell)).collect::<Vec<_>>().join(","),
                _ => row.join("\t"),
            };
            out.write_all(line.as_bytes())?;
            out.write_all(&[self.separator])?;
        }
        Ok(())
    }
}

/// One line of a list.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// As many as the header has.
    pub(crate) cells: Vec<String>,
    /// The same and more, for programs.
    pub(crate) json: Value,
}

fn stdout_failure(error: io::Error) -> Failure {
    Failure::io("stdout")(error)
}

fn new_table() -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table
}

/// A stream of pairs on its way out. `finish` it.
pub(crate) struct Pairs<W: Write> {
    output: Output,
    columns: Columns,
    out: W,
    count: u64,
    block: Vec<[String; 2]>,
}

impl<W: Write> Pairs<W> {
    /// Prints one pair.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.write_pair(key, value).map_err(stdout_failure)?;
        self.count += 1;
        Ok(())
    }

    /// Ends the document. How many pairs there were.
    pub(crate) fn finish(mut self) -> Result<u64, Failure> {
        self.write_end().and_then(|()| self.out.flush()).map_err(stdout_failure)?;
        Ok(self.count)
    }

    fn write_pair(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        match self.output.format {
            Format::Table if self.columns == Columns::Value => self.write_line(&[&show(value)]),
            Format::Table => {
                self.block.push([show(key), show(value)]);
                if self.block.len() >= TABLE_ROWS { self.write_block() } else { Ok(()) }
            }
            Format::Plain => match self.columns {
                Columns::Pair => self.write_line(&[&show(key), &show(value)]),
                Columns::Key => self.write_line(&[&show(key)]),
                Columns::Value => self.write_line(&[&show(value)]),
            },
            Format::Json => {
                // A value asked for by name is one object; everything else is a list.
                let lead = match (self.columns, self.count) {
                    (Columns::Value, _) => "",
                    (_, 0) => "[",
                    (_, _) => ",\n ",
                };
                write!(self.out, "{lead}{}", json_pair(self.columns, key, value))
            }
            Format::Jsonl => self.write_line(&[&json_pair(self.columns, key, value).to_string()]),
            Format::Csv => {
                if self.count == 0 && self.output.header {
                    self.write_csv_header()?;
                }
                let (key, value) = (csv_cell(&show(key)), csv_cell(&show(value)));
                let line = match self.columns {
                    Columns::Key => key,
                    Columns::Pair | Columns::Value => format!("{key},{value}"),
                };
                self.write_line(&[&line])
            }
            Format::Raw => self.write_raw(key, value),
        }
    }

    fn write_raw(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        match self.columns {
            // Exactly the value: `get k -o raw > file`.
            Columns::Value => return self.out.write_all(value),
            Columns::Key => self.out.write_all(key)?,
            Columns::Pair => {
                self.out.write_all(key)?;
                self.out.write_all(b"\t")?;
                self.out.write_all(value)?;
            }
        }
        self.out.write_all(&[self.output.separator])
    }

    fn write_end(&mut self) -> io::Result<()> {
        match self.output.format {
            Format::Json if self.columns == Columns::Value && self.count == 0 => Ok(()),
            Format::Json if self.columns == Columns::Value => self.out.write_all(b"\n"),
            Format::Json if self.count == 0 => self.out.write_all(b"[]\n"),
            Format::Json => self.out.write_all(b"]\n"),
            Format::Csv if self.count == 0 && self.output.header => self.write_csv_header(),
            Format::Table if !self.block.is_empty() => self.write_block(),
            _ => Ok(()),
        }
    }

    fn write_csv_header(&mut self) -> io::Result<()> {
        let header = if self.columns == Columns::Key { "key" } else { "key,value" };
        self.write_line(&[header])
    }

    fn write_block(&mut self) -> io::Result<()> {
        let shown = if self.columns == Columns::Key { 1 } else { 2 };
        let rows: Vec<Vec<String>> =
            self.block.drain(..).map(|row| row.into_iter().take(shown).collect()).collect();
        let first = self.count < TABLE_ROWS as u64;
        let output = Output { header: self.output.header && first, ..self.output.clone() };
        output.rows_to(&mut self.out, &["key", "value"][..shown], &rows)
    }

    fn write_line(&mut self, cells: &[&str]) -> io::Result<()> {
        self.out.write_all(cells.join("\t").as_bytes())?;
        self.out.write_all(&[self.output.separator])
    }
}

/// A pair as JSON: text where it is UTF-8, base64 under another name where it is not.
pub(crate) fn json_pair(columns: Columns, key: &[u8], value: &[u8]) -> Value {
    let mut object = Map::new();
    insert_bytes(&mut object, "key", key);
    if columns != Columns::Key {
        insert_bytes(&mut object, "value", value);
    }
    Value::Object(object)
}

fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}_b64"), STANDARD.encode(bytes).into()),
    };
}

/// The bytes of a field that `insert_bytes` wrote; `None` if it is not there.
pub(crate) fn json_bytes(object: &Map<String, Value>, name: &str) -> Result<Option<Bytes>, String> {
    match (object.get(name), object.get(&format!("{name}_b64"))) {
        (None, None) => Ok(None),
        (Some(Value::String(text)), None) => Ok(Some(Bytes::copy_from_slice(text.as_bytes()))),
        (None, Some(Value::String(text))) => match STANDARD.decode(text) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) => Err(format!("\"{name}_b64\": {error}")),
        },
        (Some(_), Some(_)) => Err(format!("both \"{name}\" and \"{name}_b64\"")),
        _ => Err(format!("\"{name}\" is not a string")),
    }
}

fn csv_cell(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
#[path = "output/tests.rs"]
mod tests;

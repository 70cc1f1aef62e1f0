//! What every verb works with: the options, the way out, and the connection, made when it is first needed.

use std::io::{IsTerminal, Read, Write};

use bytes::Bytes;
use client::{Client, Settings, WriteMode};

use crate::admin::Admin;
use crate::cli::Global;
use crate::failure::Failure;
use crate::output::Output;
use crate::{endpoints, text};

/// The surroundings of a verb.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) output: Output,
    client: Option<Client>,
    admin: Option<Admin>,
}

impl Context {
    /// Not connected yet.
    pub(crate) fn new(global: Global) -> Context {
        let output = Output::new(&global);
        Context { global, output, client: None, admin: None }
    }

    /// The same connection with other options, for one line of the shell.
    pub(crate) fn with_global(&self, global: Global) -> Context {
        let output = Output::new(&global);
        let client = self.client.as_ref().map(|client| client.with_settings(settings(&global)));
        Context { global, output, client, admin: self.admin.clone() }
    }

    /// The connection.
    pub(crate) async fn client(&mut self) -> Result<Client, Failure> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let endpoints = endpoints::discover(&self.global.endpoints);
        let client = Client::connect(&endpoints, settings(&self.global)).await?;
        self.client = Some(client.clone());
        Ok(client)
    }

    /// The connection to the scheduler's admin service.
    pub(crate) async fn admin(&mut self) -> Result<Admin, Failure> {
        if let Some(admin) = &self.admin {
            return Ok(admin.clone());
        }
        let endpoints = endpoints::discover(&self.global.endpoints);
        let admin = Admin::connect(&endpoints, self.global.timeout).await?;
        self.admin = Some(admin.clone());
        Ok(admin)
    }

    /// Keeps what a line of the shell has connected to.
    pub(crate) fn keep(&mut self, line: &Context) {
        self.admin = self.admin.take().or_else(|| line.admin.clone());
    }

    /// The bytes of a typed key.
    pub(crate) fn key(&self, typed: &str) -> Result<Bytes, Failure> {
        match self.global.hex {
            true => Ok(text::parse_hex(typed)?),
            false => Ok(text::parse(typed)?),
        }
    }

    /// The bytes of a typed value: `-` is all of stdin, `@file` a file's content.
    pub(crate) fn value(&self, typed: &str) -> Result<Bytes, Failure> {
        if typed == "-" {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).map_err(Failure::io("stdin"))?;
            return Ok(bytes.into());
        }
        match typed.strip_prefix('@') {
            Some(path) => Ok(std::fs::read(path).map_err(Failure::io(path))?.into()),
            None => self.key(typed),
        }
    }

    /// Asks before something that cannot be undone. Without a terminal the answer is no.
    pub(crate) fn confirm(&self, question: &str) -> Result<(), Failure> {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::Usage(format!("{question} Say so with --yes.")));
        }
        let mut stderr = std::io::stderr().lock();
        write!(stderr, "{question} [y/N] ").map_err(Failure::io("stderr"))?;
        stderr.flush().map_err(Failure::io("stderr"))?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map_err(Failure::io("stdin"))?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Failure::Usage("nothing was done".to_owned())),
        }
    }
}

/// The client's settings that the options ask for.
pub(crate) fn settings(global: &Global) -> Settings {
    let write_mode = if global.plain_writes { WriteMode::Plain } else { WriteMode::ExactlyOnce };
    Settings { budget: global.timeout, write_mode, ..Settings::default() }
}

/// Something worth saying that is not data.
pub(crate) fn note(text: &str) {
    // Nobody is left to tell if stderr is gone.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

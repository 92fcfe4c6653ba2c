//! `pvemig report [RUN]`.

use crate::engine::store::RunRead;
use crate::report;

use super::args::{Common, Format, ReportArgs};
use super::exit::Exit;
use super::fail::Words;
use super::out::Out;
use super::session::Session;

/// Renders a run's journal on stdout.
pub(super) fn report(common: &Common, args: &ReportArgs, out: &Out) -> anyhow::Result<Exit> {
    let session = Session::open(common, out)?;
    let run = match &args.run {
        Some(given) => session.store.run(given)?.read()?,
        None => {
            let none = || Words::usage("this site has no run yet", "`pvemig run MIGRATION` begins one");
            session.store.runs()?.into_iter().next_back().ok_or_else(none)?
        }
    };
    let rendered = match args.format {
        Format::Text => text(&run, out),
        Format::Markdown => report::markdown(&run.id, &run.records)?,
        Format::Json => format!("{}\n", report::json(&run.id, &run.records)?),
    };
    out.data(&rendered)?;
    Ok(Exit::Done)
}

/// For a terminal.
pub(super) fn text(run: &RunRead, out: &Out) -> String {
    report::tree(&run.id, &run.records, out.width()).unwrap_or_else(|error| format!("{error}\n"))
}

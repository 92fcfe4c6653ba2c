//! `pvemig report [RUN]`.

use crate::engine::store::RunRead;
use crate::report::{self, Report};

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
    let Some(read) = Report::of(&run.id, &run.records)? else { return Ok(Exit::Done) };
    let rendered = match args.format {
        Format::Text => report::text(&read),
        Format::Markdown => report::markdown(&read),
        Format::Json => format!("{}\n", report::json(&read)?),
    };
    out.data(&rendered)?;
    Ok(Exit::Done)
}

/// For a terminal.
pub(super) fn text(run: &RunRead) -> anyhow::Result<String> {
    Ok(Report::of(&run.id, &run.records)?.map(|read| report::text(&read)).unwrap_or_default())
}

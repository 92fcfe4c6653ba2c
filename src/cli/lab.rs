//! `pvemig lab up|move|power|swap|worlds`.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use crate::engine::store::{Ids, Store};
use crate::lab::control::{self, Request};
use crate::lab::{self, Lab, LabError, LabOptions, Place, World};
use crate::site::Site;

use super::args::{LabArgs, LabVerb, Who};
use super::exit::Exit;
use super::fail::{self, Words};
use super::hands;
use super::out::Out;
use super::words;

pub(super) async fn lab(args: LabArgs, out: &Out) -> anyhow::Result<Exit> {
    match args.verb {
        LabVerb::Worlds => {
            let lines = lab::names().into_iter().map(|(name, about)| format!("{name:<24} {about}\n"));
            out.data(&lines.collect::<String>())?;
            Ok(Exit::Done)
        }
        LabVerb::Up { world, dir, speed, hands } => up(&world, &dir, speed, hands, out).await,
        LabVerb::Swap { node, dir } => by_hand(&dir, &Request::Swap { node }, out).await,
        LabVerb::Power { node, dir } => by_hand(&dir, &Request::Power { node }, out).await,
        LabVerb::Move { stick, to, dir } => {
            let (host, port) = to.split_once(':').map_or((to.as_str(), None), |(h, p)| (h, Some(p)));
            let state = control::ask(&dir, &Request::State).await.map_err(|error| asked(error, &dir))?;
            let mut world: World = serde_json::from_value(state)?;
            // A stick's name comes before a serial number.
            if !world.sticks.contains_key(&stick) && !world.talos.nodes.is_empty() {
                return by_hand(&dir, &Request::Drive { which: stick, to }, out).await;
            }
            // What cannot be is a mistake of the command line's, and not the lab's.
            let wrong = |error: LabError| Words::usage(error.to_string(), "a host alone takes its first free port");
            let port = match port {
                Some(port) => port.to_owned(),
                None => hands::free_socket(&world, host).map_err(wrong)?,
            };
            let place = Place { host: host.to_owned(), port: port.clone() };
            world.move_stick(&stick, Some(place.clone())).map_err(wrong)?;
            control::ask(&dir, &Request::Move { stick: stick.clone(), place: Some(place) }).await?;
            out.data(&format!("{stick} is in {host}, port {port}\n"))?;
            Ok(Exit::Done)
        }
    }
}

/// Has something done in a running lab, and tells what came of it.
async fn by_hand(dir: &Path, request: &Request, out: &Out) -> anyhow::Result<Exit> {
    let said = control::ask(dir, request).await.map_err(|error| match (error, request) {
        // What cannot be is a mistake of the command line's here too.
        (LabError::Control(text), Request::Drive { .. } | Request::Power { .. }) => {
            let help = "`pvemig lab power NODE` switches a machine on or off; `--to bench` takes a drive out";
            Words::usage(text, help).into()
        }
        (other, _) => asked(other, dir),
    })?;
    out.data(&format!("{}\n", said.as_str().unwrap_or_default()))?;
    Ok(Exit::Done)
}

/// Why a running lab could not be asked, with a way out.
fn asked(error: LabError, dir: &Path) -> anyhow::Error {
    match &error {
        LabError::NoLab { .. } => Words::usage(
            error.to_string(),
            format!("`pvemig lab up --dir {}` starts one; `--dir` names the folder of one that runs", quoted(dir)),
        )
        .into(),
        LabError::Unasked { .. } => {
            let help = format!("it is to be asked by whoever started it: `ls -ld {}`", quoted(dir));
            let text = format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default());
            Words::new(Exit::Failed, text, vec![help]).into()
        }
        _ => error.into(),
    }
}

fn quoted(dir: &Path) -> String {
    words::quoted(&dir.to_string_lossy())
}

/// Starts a lab in a folder; the folder is made if it is absent.
pub(super) async fn start(world: &str, dir: &Path, speed: u32) -> anyhow::Result<Lab> {
    let world = lab::load(world).map_err(|error| Words::usage(error.to_string(), "`pvemig lab worlds` lists them"))?;
    Ok(Lab::start(LabOptions { world, dir: dir.to_owned(), speed }).await?)
}

/// The site of a lab's folder.
pub(super) fn site(lab: &Lab, out: &Out) -> anyhow::Result<Arc<Site>> {
    let site = Site::load(&lab.dir().join("site.yaml")).map_err(|error| fail::site_error(&error, out.width()))?;
    Ok(Arc::new(site))
}

async fn up(world: &str, dir: &Path, speed: u32, who: Who, out: &Out) -> anyhow::Result<Exit> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let lab = start(world, &std::path::absolute(dir)?, speed).await?;
    let site = site(&lab, out)?;
    let store = Store::open(&lab.dir().join("state"), &site.name, Ids::Random)?;
    let folder = lab.dir().display().to_string();
    out.data(&format!("ready: world {world} in {folder}; `. {folder}/env` sets the variables, Ctrl-C ends it\n"))?;
    let following = async {
        match who {
            Who::Auto => hands::follow(&lab, &store, *out).await,
            Who::Manual => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
        () = lab.stopped() => {}
        () = following => {}
    }
    lab.stop().await;
    Ok(Exit::Done)
}

//! `pvemig lab up|move|worlds`.

use std::path::Path;
use std::sync::Arc;

use crate::engine::store::{Ids, Store};
use crate::lab::control::{self, Request};
use crate::lab::{self, Lab, LabOptions, Place, World};
use crate::site::Site;

use super::args::{LabArgs, LabVerb, Who};
use super::exit::Exit;
use super::fail::{self, Words};
use super::hands;
use super::out::Out;

pub(super) async fn lab(args: LabArgs, out: &Out) -> anyhow::Result<Exit> {
    match args.verb {
        LabVerb::Worlds => {
            let lines = lab::names().into_iter().map(|(name, about)| format!("{name:<24} {about}\n"));
            out.data(&lines.collect::<String>())?;
            Ok(Exit::Done)
        }
        LabVerb::Up { world, dir, speed, hands } => up(&world, &dir, speed, hands, out).await,
        LabVerb::Move { stick, to, dir } => {
            let (host, port) = to.split_once(':').map_or((to.as_str(), None), |(h, p)| (h, Some(p)));
            let world: World = serde_json::from_value(control::ask(&dir, &Request::State).await?)?;
            let port = match port {
                Some(port) => port.to_owned(),
                None => hands::free_socket(&world, host)?,
            };
            let place = Place { host: host.to_owned(), port: port.clone() };
            control::ask(&dir, &Request::Move { stick: stick.clone(), place: Some(place) }).await?;
            out.data(&format!("{stick} is in {host}, port {port}\n"))?;
            Ok(Exit::Done)
        }
    }
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

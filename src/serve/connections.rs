//! Connections: accepted up to a number, each served by a task, all ended politely.

use super::patient::Patient;
use super::{App, router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// How long to wait after a connection could not be accepted (no file handles are left).
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` becomes true; then accepts nobody any more, finishes what is being worked
/// on, and returns, at the latest after the deadline of a request.
///
/// # Errors
/// The listener can't be used.
pub async fn serve(
    app: App,
    listener: std::net::TcpListener,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(app.settings.max_connections));
    let (timeout, patience) = (app.settings.client_timeout, app.settings.deadline);
    let service = TowerToHyperService::new(router(Arc::new(app)));
    let mut tasks = JoinSet::new();
    while let Some((stream, place)) = accept(&listener, &places, &mut stop).await {
        let connection = connection(stream, service.clone(), timeout, stop.clone());
        tasks.spawn(async move {
            connection.await;
            drop(place);
        });
        while tasks.try_join_next().is_some() {}
    }
    drop(listener);
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(patience, all).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
    Ok(())
}

/// The next connection with its place among those that are open; `None` to stop.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    stop: &mut watch::Receiver<bool>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let next = async {
        let place = places.clone().acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, place)),
                Err(error) => {
                    tracing::warn!("a connection was not accepted: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = stopped(stop) => None,
        next = next => next,
    }
}

/// Waits for the signal to stop, or until nobody can give it any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Serves the requests of one connection, one after the other.
async fn connection(
    stream: TcpStream,
    service: TowerToHyperService<axum::Router>,
    timeout: Duration,
    mut stop: watch::Receiver<bool>,
) {
    // Small pieces of a stream go out at once.
    let _ = stream.set_nodelay(true);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .serve_connection(TokioIo::new(Patient::new(stream, timeout)), service);
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}

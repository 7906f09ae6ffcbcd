//! The server's life: its own thread and runtime, loading, serving, stopping, dying.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use super::answer::{RequestTrace, Traces};
use super::connection;
use super::flavor::WhileLoading;
use super::hub::Hub;
use super::log;
use super::options::{MetricsAt, SimError, SimOptions, StartCrash};
use super::preset::Costs;
use super::routes::Door;
use super::timer::Timer;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 4096;
/// Share of the load time after which a start that fails, fails.
const START_CRASH_AT: f64 = 0.6;

/// How far the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Loading,
    Ready,
    /// It was told to stop.
    Stopped,
    /// The engine died; `reason` is its first fatal log line.
    Crashed {
        reason: String,
    },
}

impl Status {
    /// Nothing is served any more, and nothing will be.
    pub fn is_end(&self) -> bool {
        matches!(self, Status::Stopped | Status::Crashed { .. })
    }
}

/// A running simulated engine. Stops when dropped.
#[derive(Debug)]
pub struct SimServer {
    addr: SocketAddr,
    stop: CancellationToken,
    status: watch::Receiver<Status>,
    log: Option<mpsc::UnboundedReceiver<String>>,
    traces: Traces,
    thread: Option<JoinHandle<()>>,
}

/// Starts a simulated engine. Its port is taken when this returns; whether it answers yet depends on the flavor and on
/// `load_time`.
pub fn start(options: SimOptions) -> Result<SimServer, SimError> {
    let asked = SocketAddr::new(options.host, options.port);
    let bind = |source| SimError::Bind { addr: asked, source };
    let socket = bound(asked).map_err(bind)?;
    let addr = socket.local_addr().map_err(bind)?;
    let sockets = Sockets { server: socket, metrics: metrics_socket(&options)? };
    let (status_in, status) = watch::channel(Status::Loading);
    let (log_in, log) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let traces = Traces::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| SimError::Thread { source })?;
    let thread = {
        let (stop, traces) = (stop.clone(), Arc::clone(&traces));
        let run = move || {
            let end = LocalSet::new().block_on(&runtime, live(options, sockets, stop, &status_in, log_in, traces));
            // Connections and listener are closed before anyone learns of the end.
            drop(runtime);
            status_in.send_replace(end);
        };
        std::thread::Builder::new().name("sim".into()).spawn(run).map_err(|source| SimError::Thread { source })?
    };
    Ok(SimServer { addr, stop, status, log: Some(log), traces, thread: Some(thread) })
}

/// The server's socket, and that of the metrics where they have a port of their own.
struct Sockets {
    server: TcpSocket,
    metrics: Option<TcpSocket>,
}

fn metrics_socket(options: &SimOptions) -> Result<Option<TcpSocket>, SimError> {
    let MetricsAt::Port(port) = options.metrics else { return Ok(None) };
    let addr = SocketAddr::new(options.host, port);
    bound(addr).map(Some).map_err(|source| SimError::Bind { addr, source })
}

/// The address by which a server of this host is reached from it.
fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(a) if a.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, a.port()).into(),
        SocketAddr::V6(a) if a.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, a.port()).into(),
        addr => addr,
    }
}

/// A socket that has its port and does not listen yet: until it does, connections are refused.
fn bound(addr: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Only where the port is asked for: it may be in TIME_WAIT from an earlier life. Two sockets that share an address
    // without listening would otherwise be given the same free port.
    socket.set_reuseaddr(addr.port() != 0)?;
    socket.bind(addr)?;
    Ok(socket)
}

impl SimServer {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://ADDRESS:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Every later status, from any thread or runtime.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Why the engine died, if it did.
    pub fn crashed(&self) -> Option<String> {
        match self.status() {
            Status::Crashed { reason } => Some(reason),
            _ => None,
        }
    }

    /// Waits until the server no longer loads: ready, stopped or crashed.
    pub async fn wait_loaded(&self) -> Status {
        self.wait_for(|s| *s != Status::Loading).await
    }

    /// Waits until the server has stopped or crashed.
    pub async fn wait(&self) -> Status {
        self.wait_for(Status::is_end).await
    }

    async fn wait_for(&self, until: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.status.clone();
        // The sender only goes away with the thread, after it has sent an end; a panic there leaves what was last said.
        let found = status.wait_for(until).await.map(|s| s.clone());
        found.unwrap_or_else(|_| Status::Crashed { reason: "the simulator's thread panicked".into() })
    }

    /// The log, line by line, from the start on. Can be taken once.
    pub fn take_log(&mut self) -> Option<mpsc::UnboundedReceiver<String>> {
        self.log.take()
    }

    /// Records of the requests that have ended since the last call, with the option `trace`.
    pub fn take_trace(&self) -> Vec<RequestTrace> {
        std::mem::take(&mut self.traces.lock().expect("no holder of the traces panics"))
    }

    /// Stops the server and waits until its sockets are closed. Connections are dropped as they are.
    pub fn stop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic has already shown itself as a status.
            let _ = thread.join();
        }
    }
}

impl Drop for SimServer {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn live(
    options: SimOptions,
    sockets: Sockets,
    stop: CancellationToken,
    status: &watch::Sender<Status>,
    log: mpsc::UnboundedSender<String>,
    traces: Traces,
) -> Status {
    let costs = Costs::of(&options);
    let hub = Rc::new(Hub::new(options, costs, log, traces));
    hub.addr.set(sockets.server.local_addr().ok().map(reachable));
    tokio::select! {
        biased;
        () = stop.cancelled() => Status::Stopped,
        reason = serve(&hub, &costs, sockets, status) => Status::Crashed { reason },
    }
}

/// Loads and serves until the engine dies; gives the reason.
async fn serve(hub: &Rc<Hub>, costs: &Costs, sockets: Sockets, status: &watch::Sender<Status>) -> String {
    let Sockets { server: socket, metrics } = sockets;
    let timer = match Timer::new() {
        Ok(timer) => timer,
        Err(e) => return format!("cannot make a timer: {e}"),
    };
    // As much as is asked for, really taken: what a container's memory limit is tested with.
    let weights = vec![1u8; usize::try_from(hub.options.host_memory).unwrap_or(usize::MAX)];
    std::hint::black_box(&weights);
    let driver = hub.clone();
    tokio::task::spawn_local(async move { driver.drive(timer).await });
    let listener = match hub.options.flavor.while_loading() {
        WhileLoading::Refused => match load(hub, costs).await {
            Some(death) => return death,
            None => socket.listen(BACKLOG),
        },
        WhileLoading::Unavailable | WhileLoading::Proxy => match socket.listen(BACKLOG) {
            Err(e) => Err(e),
            Ok(listener) => tokio::select! {
                death = load(hub, costs) => match death {
                    Some(death) => return death,
                    None => Ok(listener),
                },
                never = accept(hub, &listener, Door::Server) => match never {},
            },
        },
    };
    let listener = match listener {
        Ok(listener) => listener,
        Err(e) => return format!("cannot listen: {e}"),
    };
    match metrics.map(|socket| socket.listen(BACKLOG)) {
        None => {}
        Some(Err(e)) => return format!("cannot listen for metrics: {e}"),
        Some(Ok(listener)) => {
            let hub = hub.clone();
            tokio::task::spawn_local(async move { match accept(&hub, &listener, Door::Metrics).await {} });
        }
    }
    hub.ready.set(true);
    status.send_replace(Status::Ready);
    tokio::select! {
        () = hub.crash.notified() => {
            let reason = log::crash(hub.options.flavor);
            hub.log(reason.clone());
            reason
        }
        never = accept(hub, &listener, Door::Server) => match never {},
    }
}

/// Takes the load time and says what is being done; gives the reason when the start fails.
async fn load(hub: &Hub, costs: &Costs) -> Option<String> {
    let o = &hub.options;
    let load_time = o.load_time.div_f64(o.speed);
    let started = tokio::time::Instant::now();
    let too_little_kv = (o.fixed.is_none() && costs.kv_tokens < u64::from(o.max_model_len)).then_some(StartCrash::Kv);
    let crash = o.faults.crash_at_start.or(too_little_kv);
    for (share, line) in log::startup(o, costs) {
        if crash.is_some() && share > START_CRASH_AT {
            break;
        }
        if o.faults.never_ready && share >= 1.0 {
            std::future::pending::<()>().await;
        }
        pause_until(started + load_time.mul_f64(share)).await;
        hub.log(line);
    }
    let lines = log::start_crash(o, crash?, costs);
    for line in &lines {
        hub.log(line.clone());
    }
    lines.into_iter().next()
}

async fn pause_until(at: tokio::time::Instant) {
    if at > tokio::time::Instant::now() {
        tokio::time::sleep_until(at).await;
    }
}

async fn accept(hub: &Rc<Hub>, listener: &TcpListener, door: Door) -> std::convert::Infallible {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => drop(tokio::task::spawn_local(connection::serve(hub.clone(), tcp, door))),
            // Out of file descriptors: the ones in use may be given back.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

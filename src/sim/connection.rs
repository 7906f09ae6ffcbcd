//! One connection, from accept to close: requests one after the other, and an eye on whether the client is still there.

use std::rc::Rc;

use tokio::net::TcpStream;

use super::answer::End;
use super::batch;
use super::http::{ReadError, Reader, Response, Socket};
use super::hub::{Hub, Ticket};
use super::routes::{self, Action, Door};

/// Serves a connection until either side is done with it.
pub async fn serve(hub: Rc<Hub>, tcp: TcpStream, door: Door) {
    let Ok(socket) = Socket::new(tcp).await else { return };
    let server = hub.options.flavor.server_header();
    let mut reader = Reader::default();
    let mut idle = None;
    loop {
        let request = match reader.next(&socket, idle).await {
            Ok(request) => request,
            Err(ReadError::Closed) => return,
            Err(ReadError::Refused(status)) => {
                socket.send(&Response::text(status, "Invalid HTTP request received.").bytes(server, false));
                let _ = socket.flush().await;
                return;
            }
        };
        let keep_alive = request.keep_alive;
        let respond = |r: Response| socket.send(&r.bytes(server, keep_alive));
        match routes::route(&hub, &request, door) {
            Action::Respond(response) => respond(response),
            Action::RespondAfter(delay, response) => {
                tokio::time::sleep(delay).await;
                respond(response);
            }
            Action::Generate(number, order) => {
                let ticket = hub.submit(&socket, request.received, number, order);
                if !follow(&hub, &socket, &mut reader, ticket).await {
                    return;
                }
            }
            Action::Batch => respond(batch::answer(&hub, &request)),
            Action::Crash => {
                hub.crash.notify_one();
                return std::future::pending().await;
            }
        }
        if socket.flush().await.is_err() || !keep_alive {
            return;
        }
        // The first request may take its time, as with the real servers.
        idle = hub.options.keep_alive;
    }
}

/// Waits for the end of an answer. `false` when the connection is to be closed.
async fn follow(hub: &Hub, socket: &Socket, reader: &mut Reader, ticket: Ticket) -> bool {
    // A task that is dropped with its connection must not leave its request in the engine.
    let _guard = CancelOnDrop { hub, id: ticket.id };
    loop {
        tokio::select! {
            biased;
            () = ticket.answer.ended.notified() => match ticket.answer.end() {
                Some(End::Complete) => return true,
                Some(End::Dropped) => {
                    let _ = socket.flush().await;
                    return false;
                }
                Some(End::Stalled) | None => {}
            },
            here = reader.watch(socket) => if !here {
                return false;
            },
            () = socket.drain() => return false,
        }
    }
}

struct CancelOnDrop<'a> {
    hub: &'a Hub,
    id: u64,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.hub.cancel(self.id);
    }
}

//! A TCP proxy before the broker that can cut connections, refuse them, and speak in the broker's name.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{broadcast, watch},
};

#[derive(Clone, Debug)]
enum Act {
    Cut,
    Say(Arc<[u8]>),
}

pub(crate) struct Proxy {
    port: u16,
    acts: broadcast::Sender<Act>,
    refusing: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) async fn start(broker: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (acts, _) = broadcast::channel(16);
        let (refusing, refuses) = watch::channel(false);
        tokio::spawn(accept(listener, broker, acts.clone(), refuses));
        Self { port, acts, refusing }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends every connection without a word, as a node that dies does.
    pub(crate) fn cut(&self) {
        self.acts.send(Act::Cut).ok();
    }

    /// Takes connections and ends them at once, or lets them through again.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.refusing.send_replace(refuse);
    }

    /// Tells every client that the broker raised an alarm: the frame a broker sends, since an alarm itself would stop
    /// the other tests.
    pub(crate) fn block(&self, reason: &str) {
        let mut method = vec![0, 10, 0, 60, reason.len() as u8];
        method.extend_from_slice(reason.as_bytes());
        self.say(&method);
    }

    /// Tells every client that the alarm is over.
    pub(crate) fn unblock(&self) {
        self.say(&[0, 10, 0, 61]);
    }

    /// Sends a method frame on channel 0.
    fn say(&self, method: &[u8]) {
        let mut frame = vec![1, 0, 0];
        frame.extend_from_slice(&(method.len() as u32).to_be_bytes());
        frame.extend_from_slice(method);
        frame.push(0xCE);
        self.acts.send(Act::Say(frame.into())).expect("a client is connected");
    }
}

async fn accept(listener: TcpListener, broker: String, acts: broadcast::Sender<Act>, refuses: watch::Receiver<bool>) {
    while let Ok((client, _)) = listener.accept().await {
        if *refuses.borrow() {
            continue;
        }
        let acts = acts.subscribe();
        let Ok(server) = TcpStream::connect(&broker).await else {
            continue;
        };
        tokio::spawn(serve(client, server, acts));
    }
}

async fn serve(client: TcpStream, server: TcpStream, acts: broadcast::Receiver<Act>) {
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    tokio::select! {
        _ = copy(&mut from_client, &mut to_server) => {}
        () = broker_to_client(from_server, to_client, acts) => {}
    }
}

/// Passes whole frames on, so that a frame of our own can come between two of them.
async fn broker_to_client(from: OwnedReadHalf, mut to: OwnedWriteHalf, mut acts: broadcast::Receiver<Act>) {
    let (sender, mut frames) = tokio::sync::mpsc::channel(16);
    let reader = tokio::spawn(async move {
        let mut from = from;
        while let Ok(frame) = read_frame(&mut from).await {
            if sender.send(frame).await.is_err() {
                break;
            }
        }
    });
    loop {
        let frame = tokio::select! {
            frame = frames.recv() => match frame {
                Some(frame) => frame,
                None => break,
            },
            act = acts.recv() => match act {
                Ok(Act::Say(frame)) => frame.to_vec(),
                Ok(Act::Cut) | Err(_) => break,
            },
        };
        if to.write_all(&frame).await.is_err() {
            break;
        }
    }
    reader.abort();
}

/// Type (1), channel (2), size (4), payload (size), end mark (1).
async fn read_frame(from: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; 7];
    from.read_exact(&mut frame).await?;
    let size = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]) as usize;
    frame.resize(7 + size + 1, 0);
    from.read_exact(&mut frame[7..]).await?;
    Ok(frame)
}

// Echo answers over TCP and UDP with who it is and whom it sees, and says back what it hears.
//
// A TCP connection gets the line `POD NODE CLIENT` at once, and then every line back. A datagram is answered by that line and itself.
// Another port swallows what it is sent, and says at the end how many bytes that were.
// Told to end, it goes on as long as somebody may still come or is still there: as a server that drains does.
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	address = ":7000"
	sink    = ":7001"
	// How long clients may still come that have not heard that it ends.
	grace = 10 * time.Second
	// How long those that are there may stay.
	patience = 30 * time.Second
)

var (
	pod, node = os.Getenv("POD"), os.Getenv("NODE")
	open      atomic.Int64
)

func main() {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	sinkListener, err := net.Listen("tcp", sink)
	if err != nil {
		log.Fatal(err)
	}
	socket, err := net.ListenPacket("udp", address)
	if err != nil {
		log.Fatal(err)
	}
	go accept(listener, serve)
	go accept(sinkListener, swallow)
	go answer(socket)

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	<-signals
	end := time.Now().Add(patience)
	time.Sleep(grace)
	for open.Load() > 0 && time.Now().Before(end) {
		time.Sleep(100 * time.Millisecond)
	}
}

func accept(listener net.Listener, serve func(net.Conn)) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		open.Add(1)
		go func() {
			defer open.Add(-1)
			defer connection.Close()
			serve(connection)
		}()
	}
}

func serve(connection net.Conn) {
	fmt.Fprintln(connection, greeting(connection.RemoteAddr()))
	lines := bufio.NewScanner(connection)
	for lines.Scan() {
		if _, err := fmt.Fprintln(connection, lines.Text()); err != nil {
			return
		}
	}
}

func swallow(connection net.Conn) {
	bytes, total := make([]byte, 256<<10), 0
	for {
		read, err := connection.Read(bytes)
		total += read
		if err == io.EOF {
			fmt.Fprintln(connection, total)
		}
		if err != nil {
			return
		}
	}
}

func answer(socket net.PacketConn) {
	datagram := make([]byte, 1500)
	for {
		length, client, err := socket.ReadFrom(datagram)
		if err != nil {
			log.Fatal(err)
		}
		text := greeting(client) + "\n" + string(datagram[:length])
		if _, err := socket.WriteTo([]byte(text), client); err != nil {
			log.Print(err)
		}
	}
}

func greeting(client net.Addr) string {
	host, _, _ := net.SplitHostPort(client.String())
	return fmt.Sprintf("%s %s %s", pod, node, host)
}

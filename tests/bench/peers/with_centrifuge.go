// Centrifuge, the library of Centrifugo: a node in memory, which subscribes every client to one channel.
package main

import (
	"context"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/centrifugal/centrifuge"
	"github.com/gomodule/redigo/redis"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func relay(node *centrifuge.Node, redisPort string) {
	connection, err := redis.Dial("tcp", net.JoinHostPort("127.0.0.1", redisPort))
	check(err)
	pubsub := redis.PubSubConn{Conn: connection}
	check(pubsub.Subscribe("hello"))
	for {
		switch received := pubsub.Receive().(type) {
		case redis.Message:
			_, err := node.Publish("hello", received.Data)
			check(err)
		case error:
			log.Fatal(received)
		}
	}
}

func main() {
	node, err := centrifuge.New(centrifuge.DefaultConfig)
	check(err)
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{
			Credentials:   &centrifuge.Credentials{},
			Subscriptions: map[string]centrifuge.SubscribeOptions{"hello": {}},
		}, nil
	})
	node.OnConnect(func(*centrifuge.Client) {})
	check(node.Run())
	go relay(node, os.Args[2])
	http.Handle("/connection/websocket", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{}))
	check(http.ListenAndServe(net.JoinHostPort("127.0.0.1", os.Args[1]), nil))
}

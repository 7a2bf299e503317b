package client_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/lanyard-proxy/lanyard/client"
)

// An account is connected: a link that the app signs by itself, the callback,
// and a call of the API.
func ExampleClient_CreateConnectURL() {
	// client.Config{PublicURL: "https://connect.example.com", APIURL: "http://localhost:9080", APIKey: …, ClientKey: …}
	lanyard, err := client.New(here.config)
	if err != nil {
		log.Fatal(err)
	}
	defer lanyard.Close()

	// The app sends its user's browser away. It keeps state in that browser's
	// session.
	state := rand.Text()
	link, err := lanyard.CreateConnectURL(client.ConnectParams{
		UserID: "user_123", Integration: "fake", RedirectURL: here.redirectURL, State: state,
	})
	if err != nil {
		log.Fatal(err)
	}

	// The browser comes back to RedirectURL. State and user are the session's.
	request := open(link)
	connection, err := lanyard.Callback(request, state, "user_123")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(connection.Status)

	// From now on, and with any SDK that takes an *http.Client:
	var me struct{ Name string }
	if err := getJSON(lanyard.HTTPClient(connection.ID), here.apiURL+"/me", &me); err != nil {
		log.Fatal(err)
	}
	fmt.Println(me.Name)

	// Output:
	// ACTIVE
	// Ada Lovelace
}

// The same connection gets more scopes. Until the user has agreed it goes on
// with those that it has.
func ExampleClient_CreateConnectURL_moreScopes() {
	lanyard, err := client.New(here.config)
	if err != nil {
		log.Fatal(err)
	}
	defer lanyard.Close()
	connection := connected(lanyard, "user_124")
	fmt.Println(connection.Scopes.Granted)

	state := rand.Text()
	link, err := lanyard.CreateConnectURL(client.ConnectParams{
		UserID: "user_124", ConnectionID: connection.ID, Scopes: []string{"write"}, RedirectURL: here.redirectURL, State: state,
	})
	if err != nil {
		log.Fatal(err)
	}
	again, err := lanyard.Callback(open(link), state, "user_124")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(again.Scopes.Granted, again.ID == connection.ID)

	// Output:
	// [read]
	// [read write] true
}

// An API key is connected, without a browser.
func ExampleClient_BeginWithCredentials() {
	lanyard, err := client.New(here.config)
	if err != nil {
		log.Fatal(err)
	}
	defer lanyard.Close()

	connection, err := lanyard.BeginWithCredentials(context.Background(),
		client.ConnectParams{UserID: "user_125", Integration: "keyed", Labels: map[string]string{"team": "red"}},
		map[string]string{"api_key": here.key})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(connection.Status, connection.AuthScheme)

	var me struct{ Name string }
	if err := getJSON(lanyard.HTTPClient(connection.ID), here.apiURL+"/me", &me); err != nil {
		log.Fatal(err)
	}
	fmt.Println(me.Name)

	// Output:
	// ACTIVE API_KEY
	// Ada Lovelace
}

// The user has to connect again when the provider no longer takes what they
// have granted.
func ExampleReconnectRequired() {
	show := func(w http.ResponseWriter, r *http.Request, hc *http.Client) {
		var me struct{ Name string }
		err := getJSON(hc, here.apiURL+"/me", &me)
		var reconnect *client.ReconnectRequired
		switch {
		case errors.As(err, &reconnect): // to where the app makes its links
			http.Redirect(w, r, "/connect?id="+reconnect.ConnectionID, http.StatusSeeOther)
		case err != nil:
			http.Error(w, "the provider is not to be had now", http.StatusBadGateway)
		}
	}
	_ = show
}

func ExampleClient_Connections() {
	lanyard, err := client.New(here.config)
	if err != nil {
		log.Fatal(err)
	}
	defer lanyard.Close()
	connected(lanyard, "user_126")

	for connection, err := range lanyard.Connections(context.Background(), client.Filter{UserID: "user_126"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(connection.Integration, connection.Status)
	}

	// Output:
	// fake ACTIVE
}

func ExampleVerifyWebhook() {
	secret := "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD" // from Lanyard's configuration
	body := []byte(`{"type":"connection.expired","timestamp":"2026-11-22T00:24:31Z","data":{"seq":7,"id":"ZTc","type":"connection.expired","connection_id":"conn_A"}}`)
	header := http.Header{
		"Webhook-Id":        {"msg_7"},
		"Webhook-Timestamp": {"1795307071"},
		"Webhook-Signature": {"v1,Qhq/Ygx9BSPSxWw4ZE2iITRz9/K/BAznAHiaFXUIu4A="},
	}
	event, err := client.VerifyWebhook(secret, header, body, time.Unix(1795307071, 0)) // time.Now()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(event.Type, event.ConnectionID)

	// Output:
	// connection.expired conn_A
}

// connected returns a connection of a user who has just connected it.
func connected(lanyard *client.Client, userID string) *client.Connection {
	link, err := lanyard.CreateConnectURL(client.ConnectParams{
		UserID: userID, Integration: "fake", RedirectURL: here.redirectURL, State: "state",
	})
	if err != nil {
		log.Fatal(err)
	}
	connection, err := lanyard.Callback(open(link), "state", userID)
	if err != nil {
		log.Fatal(err)
	}
	return connection
}

func getJSON(hc *http.Client, address string, out any) error {
	res, err := hc.Get(address)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return json.NewDecoder(res.Body).Decode(out)
}

// A whole SignalR application in Go's standard library: methods that clients call are functions here. Hubcast calls this by HTTP.
//
//	HUBCAST_ACCESS_KEY=... go run main.go
package main

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"os"
	"strings"
)

var keys = strings.Split(os.Getenv("HUBCAST_ACCESS_KEY"), ",") // two while keys are rotated

// The methods: what they return is the result of the call, and the text of an error is told to the client.
var methods = map[string]func(user string, arguments json.RawMessage) (any, error){
	"Add": func(_ string, arguments json.RawMessage) (any, error) {
		var numbers []float64
		if json.Unmarshal(arguments, &numbers) != nil || len(numbers) != 2 {
			return nil, errors.New("two numbers are needed")
		}
		return numbers[0] + numbers[1], nil
	},
	"WhoAmI": func(user string, _ json.RawMessage) (any, error) { return cmp.Or(user, "nobody"), nil },
}

type call struct {
	InvocationID, Target string
	Arguments            json.RawMessage
}

func isSigned(request *http.Request) bool {
	for _, key := range keys {
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write([]byte(request.Header.Get("X-ASRS-Connection-Id")))
		for _, given := range strings.Split(request.Header.Get("X-ASRS-Signature"), ",") {
			code, _ := hex.DecodeString(strings.TrimPrefix(given, "sha256="))
			if key != "" && hmac.Equal(code, mac.Sum(nil)) {
				return true
			}
		}
	}
	return false
}

func invoke(user string, call call) (string, any) {
	if method, ok := methods[call.Target]; !ok {
		return "error", "there is no method " + call.Target
	} else if result, err := method(user, call.Arguments); err != nil {
		return "error", err.Error()
	} else {
		return "result", result
	}
}

func upstream(response http.ResponseWriter, request *http.Request) {
	var call call
	user := request.Header.Get("X-ASRS-User-Id")
	if !isSigned(request) {
		http.Error(response, "not signed", http.StatusUnauthorized)
	} else if err := json.NewDecoder(request.Body).Decode(&call); err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
	} else if request.PathValue("category") == "connections" {
		log.Print(user, " ", request.PathValue("event"))
	} else if kind, value := invoke(user, call); call.InvocationID != "" { // else the client wants no answer
		json.NewEncoder(response).Encode(map[string]any{"type": 3, "invocationId": call.InvocationID, kind: value})
	}
}

func main() {
	http.HandleFunc("POST /upstream/{category}/{event}", upstream)
	log.Fatal(http.ListenAndServe(":"+cmp.Or(os.Getenv("PORT"), "8000"), nil))
}

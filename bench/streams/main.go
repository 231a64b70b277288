// Both ends of streams for bench/gateway.py: replicas that answer with one chunk at a time, and
// clients that count what comes. Compiled, so that neither is what limits a gateway.
//
//	streams serve -ports 9001,9002
//	streams load -url http://127.0.0.1:8000 -connections 32 -seconds 5
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sort"
	"strings"
	"sync"
	"time"
)

const (
	model = `{"object":"list","data":[{"id":"m","object":"model"}],"model_path":"m"}`
	// A chunk as engines write it, 190 bytes.
	chunk = `data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk",` +
		`"created":1,"model":"m","choices":[{"index":0,"delta":{"content":" token"},` +
		`"logprobs":null,"finish_reason":null}]}` + "\n\n"
	last = `data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk",` +
		`"created":1,"model":"m","choices":[],` +
		`"usage":{"prompt_tokens":9,"completion_tokens":200,"total_tokens":209}}` + "\n\n"
	done     = "data: [DONE]"
	patience = 30 * time.Second // with a gateway that sends nothing more
)

var (
	content = []byte(`"content":" token"`)
	chunks  = flag.Int("chunks", 200, "of one stream")
)

func main() {
	if len(os.Args) < 2 {
		log.Fatal("say serve or load")
	}
	role := os.Args[1]
	ports := flag.String("ports", "", "to serve on")
	every := flag.Duration("every", time.Second, "time between two chunks")
	var l load
	flag.StringVar(&l.url, "url", "", "of the gateway")
	flag.StringVar(&l.key, "key", "", "of the client")
	flag.IntVar(&l.connections, "connections", 32, "each with one stream at a time")
	flag.Float64Var(&l.seconds, "seconds", 5, "after which streams are left")
	flag.CommandLine.Parse(os.Args[2:])
	switch role {
	case "serve":
		serve(strings.Split(*ports, ","), *every)
	case "load":
		json.NewEncoder(os.Stdout).Encode(l.run())
	default:
		log.Fatalf("%s: say serve or load", role)
	}
}

func serve(ports []string, every time.Duration) {
	http.HandleFunc("/v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		flusher := w.(http.Flusher)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for i := 0; i < *chunks; i++ {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
			flusher.Flush()
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
		io.WriteString(w, last+done+"\n\n")
	})
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, model)
	})
	for _, port := range ports {
		listener, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			log.Fatal(err)
		}
		go http.Serve(listener, nil)
	}
	select {}
}

// load is one run: every connection has one stream after the other.
type load struct {
	url, key    string
	connections int
	seconds     float64

	mutex   sync.Mutex
	streams int // complete ones
	chunks  int
	errors  int // not 200, cut, or with fewer chunks than were sent
	first   []float64
}

type result struct {
	Streams int     `json:"streams"`
	Begun   int     `json:"begun"`
	Chunks  int     `json:"chunks"`
	Errors  int     `json:"errors"`
	P50     float64 `json:"p50_ms"` // of the time to the first chunk
	P99     float64 `json:"p99_ms"`
}

func (l *load) run() result {
	end := time.Now().Add(time.Duration(l.seconds * float64(time.Second)))
	transport := &http.Transport{MaxIdleConnsPerHost: l.connections, DisableCompression: true}
	client := &http.Client{Transport: transport}
	var wait sync.WaitGroup
	for i := range l.connections {
		wait.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				l.count(l.stream(client, fmt.Sprintf("%d.%d", i, n), end))
			}
		})
	}
	wait.Wait()
	sort.Float64s(l.first)
	return result{l.streams, len(l.first), l.chunks, l.errors, l.quantile(0.5), l.quantile(0.99)}
}

func (l *load) count(chunks int, first time.Duration, whole bool, err error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.chunks += chunks
	if first > 0 {
		l.first = append(l.first, first.Seconds()*1000)
	}
	if err != nil {
		l.errors++
	} else if whole {
		l.streams++
	}
}

// stream reads one answer; whole is false when the run ended before it did.
func (l *load) stream(client *http.Client, name string, end time.Time) (
	got int, first time.Duration, whole bool, err error) {
	body := fmt.Sprintf(`{"model":"m","stream":true,"max_tokens":256,`+
		`"messages":[{"role":"user","content":"%-60s"}]}`, name)
	patient, cancel := context.WithDeadline(context.Background(), end.Add(patience))
	defer cancel()
	url := l.url + "/v1/chat/completions"
	request, err := http.NewRequestWithContext(patient, "POST", url, strings.NewReader(body))
	if err != nil {
		return 0, 0, false, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+l.key)
	begun := time.Now()
	answer, err := client.Do(request)
	if err != nil {
		return 0, 0, false, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return 0, 0, false, fmt.Errorf("status %d", answer.StatusCode)
	}
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if bytes.Contains(lines.Bytes(), content) {
			if got++; got == 1 {
				first = time.Since(begun)
			}
			if time.Now().After(end) {
				return got, first, false, nil
			}
		} else if lines.Text() == done && got == *chunks {
			io.Copy(io.Discard, answer.Body) // so that the connection is used again
			return got, first, true, nil
		}
	}
	return got, first, false, fmt.Errorf("cut after %d chunks: %v", got, lines.Err())
}

func (l *load) quantile(part float64) float64 {
	if len(l.first) == 0 {
		return 0
	}
	return l.first[int(part*float64(len(l.first)-1))]
}

// The reference of `just bench transceiver|setup|memory`: what one would write with Pion to echo calls. Not part of the product.
//
//	echo mux|sockets
//
// Answers the same HTTP requests as our transceiver (an offer for an answer, and the hang-up), with Go's own HTTP server, and
// sends back the audio and the data messages of each call: SRTP, NACK, RTCP reports and the other default interceptors on.
//
//	mux      all calls share one UDP socket (ICEUDPMux), as our transceiver's do
//	sockets  each call has a socket of its own, Pion's default
//
// What makes it cheaper is given to it: ICE-lite, Opus as the only codec, one certificate for all calls, the SRTP profile that
// ours prefers, no copy of a packet beyond what Pion makes itself.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

const (
	maxPacket = 1500
	maxOffer  = 1 << 16
	buffer    = 4 << 20
	path      = "/v1/realtime/calls"
)

var opus = webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1"}

type server struct {
	api           *webrtc.API
	configuration webrtc.Configuration
	calls         sync.Map
	next          atomic.Uint64
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func newServer(mux bool) *server {
	media, interceptors := &webrtc.MediaEngine{}, &interceptor.Registry{}
	must(media.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: opus, PayloadType: 111}, webrtc.RTPCodecTypeAudio))
	must(webrtc.RegisterDefaultInterceptors(media, interceptors))
	settings := webrtc.SettingEngine{}
	settings.SetLite(true)
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	settings.SetIPFilter(func(ip net.IP) bool { return ip.IsLoopback() })
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	settings.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM)
	if mux {
		socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		must(err)
		must(socket.SetReadBuffer(buffer))
		must(socket.SetWriteBuffer(buffer))
		settings.SetICEUDPMux(webrtc.NewICEUDPMux(nil, socket))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	certificate, err := webrtc.GenerateCertificate(key)
	must(err)
	return &server{
		api: webrtc.NewAPI(
			webrtc.WithMediaEngine(media), webrtc.WithInterceptorRegistry(interceptors), webrtc.WithSettingEngine(settings)),
		configuration: webrtc.Configuration{Certificates: []webrtc.Certificate{*certificate}},
	}
}

func (s *server) answer(offer string) (string, uint64, error) {
	peer, err := s.api.NewPeerConnection(s.configuration)
	if err != nil {
		return "", 0, err
	}
	number := s.next.Add(1)
	peer.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateFailed || state == webrtc.PeerConnectionStateClosed {
			if _, held := s.calls.LoadAndDelete(number); held {
				_ = peer.Close()
			}
		}
	})
	back, err := webrtc.NewTrackLocalStaticRTP(opus, "audio", "echo")
	if err != nil {
		return "", 0, err
	}
	sender, err := peer.AddTrack(back)
	if err != nil {
		return "", 0, err
	}
	go func() { // whoever does not read has no interceptors for what comes back: NACK, reports
		reports := make([]byte, maxPacket)
		for {
			if _, _, err := sender.Read(reports); err != nil {
				return
			}
		}
	}()
	peer.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		packet, bytes := &rtp.Packet{}, make([]byte, maxPacket)
		for {
			length, _, err := track.Read(bytes)
			if err != nil {
				return
			}
			if packet.Unmarshal(bytes[:length]) == nil {
				_ = back.WriteRTP(packet)
			}
		}
	})
	peer.OnDataChannel(func(channel *webrtc.DataChannel) {
		channel.OnMessage(func(message webrtc.DataChannelMessage) {
			if message.IsString {
				_ = channel.SendText(string(message.Data))
			} else {
				_ = channel.Send(message.Data)
			}
		})
	})
	if err = peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return "", 0, err
	}
	gathered := webrtc.GatheringCompletePromise(peer)
	made, err := peer.CreateAnswer(nil)
	if err != nil {
		return "", 0, err
	}
	if err = peer.SetLocalDescription(made); err != nil {
		return "", 0, err
	}
	<-gathered
	s.calls.Store(number, peer)
	return peer.LocalDescription().SDP, number, nil
}

func (s *server) create(w http.ResponseWriter, r *http.Request) {
	offer, err := io.ReadAll(io.LimitReader(r.Body, maxOffer))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer, number, err := s.answer(string(offer))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/sdp")
	w.Header().Set("Location", fmt.Sprintf("%s/%d", path, number))
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, answer)
}

func (s *server) hangUp(w http.ResponseWriter, r *http.Request) {
	number, _ := strconv.ParseUint(r.PathValue("call"), 10, 64)
	peer, held := s.calls.LoadAndDelete(number)
	if !held {
		http.NotFound(w, r)
		return
	}
	_ = peer.(*webrtc.PeerConnection).Close()
}

func main() {
	if len(os.Args) != 2 || !strings.Contains("mux sockets", os.Args[1]) {
		fmt.Fprintln(os.Stderr, "usage: echo mux|sockets")
		os.Exit(2)
	}
	s := newServer(os.Args[1] == "mux")
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	must(err)
	http.HandleFunc("POST "+path, s.create)
	http.HandleFunc("POST "+path+"/{call}/hangup", s.hangUp)
	fmt.Printf("ready {\"http\":[\"http://%s/\"]}\n", listener.Addr())
	must(http.Serve(listener, nil))
}
